"""Outputs: files and folders that are written whole, and what they may replace.

The rules, for every command:

* A file or a folder is written aside, synced to the disk and renamed, so that it is there whole or not at all.
* A link is followed: the file that it leads to is replaced, and the link stays. A device, a FIFO or a socket is written
  straight into; nothing is renamed over it.
* A folder that holds something is replaced as a whole only where the caller knows it for its own (`own=True`), in one
  step where the system can exchange two names; else it is refused.
* `atomic_folder` replaces files in a folder that may hold other things: all of them or none, and the rest stays.
* A writer works in a folder `.NAME.partita` beside its output and keeps it locked. One that a killed writer left is
  removed by the next writer of NAME, or by `remove_unfinished`; what it had moved away is put back first.
* What one process at a time may write has a lock; see `locks`.
"""

import ctypes
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

from .errors import PartitaError
from .locks import folder_locked

# A writer's folder, of a file of any name; a second writer of the same file takes a number.
_UNFINISHED = re.compile(r"\..+\.partita(\.\d+)?")

# Longer names leave no room for those of a writer's folder, of which file systems allow 255 bytes.
_MAX_NAME = 200

# Within a writer's folder: the new output, and what stood in its place where two names cannot be exchanged in one step.
_NEW, _OLD = "new", "old"

# Within the folder of `atomic_folder`: files that are complete and have yet to take their places.
_READY = ".partita-new"

# Of renameat2, for Linux.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def atomic_write(path: str | Path, *, own: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to, a file or a folder, which then takes its place; or leave no trace.

    Args:
        path: the output; folders on the way to it are made.
        own: replace a folder there that is not empty, which the caller wrote itself.
        sync: wait until it is on the disk, so that not even a power cut leaves half of it; False for what is many and
            easily made again.

    Raises:
        PartitaError: the place cannot be written, or is a folder that holds something else.
    """
    path = Path(path)
    if _is_stream(path):
        with _written_through(path) as aside:
            yield aside
        return
    target = Path(os.path.realpath(path))
    if not own and target.is_dir():
        check_vacant(path)
    with _reported(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _writer_folder(target) as folder:
            aside = folder / _NEW / (path.name or target.name)
            yield aside
            if target.is_file() and aside.is_file():
                with suppress(OSError):
                    shutil.copymode(target, aside)
            if sync:
                _sync_tree(aside)
            if own:
                _place(aside, target, folder)
            else:
                os.replace(aside, target)  # a folder, only in the place of an empty one
            if sync:
                _sync(target.parent)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a folder to write files to, which then take their places in `folder`: all or none, and the rest stays.

    If the process is killed in between, the next `finish_interrupted_write` of the folder completes the write. The
    folder itself stays, with its permissions and with any process that works in it.

    Raises:
        PartitaError: the folder cannot be written, or a folder stands where a file has to go, or the other way round.
    """
    folder = Path(folder)
    if not folder.is_dir():
        with atomic_write(folder) as aside:
            aside.mkdir()
            yield aside
        return
    finish_interrupted_write(folder)
    with _reported(folder), _writer_folder(folder / "files") as holder:
        aside = holder / _NEW / "files"
        aside.mkdir()
        yield aside
        for path in aside.rglob("*"):
            there = folder / path.relative_to(aside)
            if there.exists() and there.is_dir() != path.is_dir():
                kind = "folder" if there.is_dir() else "file"
                raise PartitaError(f"cannot write {there}: a {kind} is in its place; move it, or name another folder")
        _sync_tree(aside)
        aside.rename(folder / _READY)  # from here on, the new files are those that count
        _sync(folder)
        finish_interrupted_write(folder)


def finish_interrupted_write(folder: str | Path) -> None:
    """Give files their places that an interrupted `atomic_folder` has completed.

    Raises:
        PartitaError: there are such files, and the folder cannot be written.
    """
    folder = Path(folder)
    ready = folder / _READY
    if ready.is_symlink() or not ready.is_dir():
        return
    with _reported(folder):
        for path in sorted(ready.rglob("*")):  # folders come before what they hold
            there = folder / path.relative_to(ready)
            if path.is_dir() and not path.is_symlink():
                there.mkdir(exist_ok=True)
            else:
                with suppress(FileNotFoundError):  # another process settles it at the same time
                    os.replace(path, there)
        _sync(folder)
    shutil.rmtree(ready, ignore_errors=True)


def check_vacant(folder: str | Path, *, but: Collection[str] = ()) -> None:
    """Refuse a place for a new folder at which there is something.

    Args:
        folder: the place.
        but: names of files that may be in it.

    Raises:
        PartitaError: it is a file, or a folder that holds something other than what a killed writer left.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise PartitaError(f"{folder} is a file; name a folder that is new or empty")
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir())
        found = [name for name in names if name not in but and not _UNFINISHED.fullmatch(name)]
        if found:
            more = f" and {len(found) - 1} more" * (len(found) > 1)
            raise PartitaError(f"{folder} holds something else: {found[0]!r}{more}; name a folder that is new or empty")


def remove_unfinished(folder: str | Path) -> None:
    """Remove what killed writers left in a folder, and put back what they had moved away."""
    folder = Path(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with folder_locked(path) as free:
                if free:
                    _put_back(path)
                    shutil.rmtree(path, ignore_errors=True)


# ------------------------------------------------------------------ how


def _is_stream(path: Path) -> bool:
    """Whether a path leads to no regular file and no folder, or to a handle of a process."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    handle = os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/"))
    return handle or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _written_through(path: Path) -> Iterator[Path]:
    with _reported(path), tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / path.name
        yield aside
        with aside.open("rb") as whole, path.open("wb") as stream:
            shutil.copyfileobj(whole, stream)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def _writer_folder(path: Path) -> Iterator[Path]:
    """A locked folder beside `path`, with an empty folder `new` in it; afterwards it is gone."""
    name = path.name if len(os.fsencode(path.name)) <= _MAX_NAME else sha256(os.fsencode(path.name)).hexdigest()
    for number in count():
        folder = path.with_name(f".{name}.partita" + f".{number}" * (number > 0))
        try:
            folder.mkdir(mode=0o700)
            made = True
        except FileExistsError:
            made = False
        with folder_locked(folder) as free:
            if not (free or (made and free is None)):
                continue
            try:
                _put_back(folder)
                for left in folder.iterdir():  # by a killed writer
                    shutil.rmtree(left)
                (folder / _NEW).mkdir()
                yield folder
            finally:
                _put_back(folder)
                shutil.rmtree(folder, ignore_errors=True)
            return


def _put_back(folder: Path) -> None:
    """Give what a writer had moved away its place again, where nothing has taken it."""
    for old in (folder / _OLD).iterdir() if (folder / _OLD).is_dir() else ():
        if not os.path.lexists(folder.with_name(old.name)):
            old.rename(folder.with_name(old.name))


def _place(aside: Path, target: Path, folder: Path) -> None:
    """Rename an output to its place; a folder there ends up in the writer's."""
    if aside.is_dir() and target.is_dir():
        if _exchange(aside, target):
            return
        (folder / _OLD).mkdir()
        target.rename(folder / _OLD / target.name)
    os.replace(aside, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _sync_tree(path: Path) -> None:
    for inner in (*path.rglob("*"), path):
        _sync(inner)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk, or until the names that a folder holds are."""
    if os.name == "nt":  # it opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # of folders, not every file system can do it
            raise
    finally:
        os.close(handle)
