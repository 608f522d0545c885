"""Atomic output: files and folders that are written completely or not at all, and never replace foreign data.

The rules, for every command:

* A file or folder is written under a temporary name, synced to disk and renamed.
* Links are followed: the target is replaced and the link stays. Devices, FIFOs and sockets are written directly;
  nothing is renamed over them.
* A non-empty folder is replaced only if the caller wrote it (`own=True`), in one step if the system can exchange two
  names. Otherwise it is an error.
* `atomic_folder` replaces all of its files in an existing folder or none, and keeps other files.
* A writer uses a locked folder `.NAME.partita` next to its output. If the writer is killed, the next writer of NAME,
  or `remove_unfinished`, restores what it had moved away and removes the folder.
* Output that only one process at a time may write has a lock; see `locks`.
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

# A writer's folder; a second writer of the same file adds a number.
_UNFINISHED = re.compile(r"\..+\.partita(\.\d+)?")

# File systems allow names of 255 bytes; longer outputs leave no room for the name of a writer's folder.
_MAX_NAME = 200

# Within a writer's folder: the new output, and the old one if two names cannot be exchanged in one step.
_NEW, _OLD = "new", "old"

# Within the folder of `atomic_folder`: complete files that have not been moved into place.
_READY = ".partita-new"

# Constants of renameat2 on Linux.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def atomic_write(path: str | Path, *, own: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which replaces `path` at the end; after an error nothing remains.

    Args:
        path: output path; missing parent folders are created.
        own: replace a non-empty folder that the caller wrote itself.
        sync: flush to disk, so that the output is complete even after a power failure; False for many small files that
            are easy to recreate.

    Raises:
        PartitaError: the path cannot be written, or is a non-empty folder and `own` is False.
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
                os.replace(aside, target)  # replaces a folder only if it is empty
            if sync:
                _sync(target.parent)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; at the end its files replace those in `folder`, all or none. Other files stay.

    If the process is killed in between, the next `finish_interrupted_write` of the folder completes the write. The
    folder itself stays, with its permissions and with any process that works in it.

    Raises:
        PartitaError: the folder cannot be written, or it has a folder at the path of a file, or vice versa.
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
                raise PartitaError(
                    f"cannot write {there}: a {kind} of that name exists; move it, or use another folder"
                )
        _sync_tree(aside)
        aside.rename(folder / _READY)  # from here on, the new files are valid
        _sync(folder)
        finish_interrupted_write(folder)


def finish_interrupted_write(folder: str | Path) -> None:
    """Move files into place that an interrupted `atomic_folder` has completed.

    Raises:
        PartitaError: there are such files, and the folder cannot be written.
    """
    folder = Path(folder)
    ready = folder / _READY
    if ready.is_symlink() or not ready.is_dir():
        return
    with _reported(folder):
        for path in sorted(ready.rglob("*")):  # folders before their contents
            there = folder / path.relative_to(ready)
            if path.is_dir() and not path.is_symlink():
                there.mkdir(exist_ok=True)
            else:
                with suppress(FileNotFoundError):  # another process does the same
                    os.replace(path, there)
        _sync(folder)
    shutil.rmtree(ready, ignore_errors=True)


def check_vacant(folder: str | Path, *, but: Collection[str] = ()) -> None:
    """Check that a new folder can be written at a path.

    Args:
        folder: path of the folder.
        but: names of files that it may hold.

    Raises:
        PartitaError: it is a file, or a folder that holds anything else but leftovers of killed writers.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise PartitaError(f"{folder} is a file; use a new or empty folder")
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir())
        found = [name for name in names if name not in but and not _UNFINISHED.fullmatch(name)]
        if found:
            more = f" and {len(found) - 1} more" * (len(found) > 1)
            raise PartitaError(f"{folder} is not empty: it holds {found[0]!r}{more}; use a new or empty folder")


def remove_unfinished(folder: str | Path) -> None:
    """Remove leftovers of killed writers in a folder, after restoring what they had moved away."""
    folder = Path(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with folder_locked(path) as free:
                if free:
                    _restore_old(path)
                    shutil.rmtree(path, ignore_errors=True)


# ------------------------------------------------------------------ implementation


def _is_stream(path: Path) -> bool:
    """Return True for devices, FIFOs, sockets and handles of a process."""
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
        with aside.open("rb") as source, path.open("wb") as stream:
            shutil.copyfileobj(source, stream)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None


@contextmanager
def _writer_folder(path: Path) -> Iterator[Path]:
    """Yield a locked folder next to `path`, with an empty folder `new` in it, and remove it afterwards."""
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
                _restore_old(folder)
                for left in folder.iterdir():  # leftovers of a killed writer
                    shutil.rmtree(left)
                (folder / _NEW).mkdir()
                yield folder
            finally:
                _restore_old(folder)
                shutil.rmtree(folder, ignore_errors=True)
            return


def _restore_old(folder: Path) -> None:
    """Move old outputs back, unless something new is at their path."""
    for old in (folder / _OLD).iterdir() if (folder / _OLD).is_dir() else ():
        if not os.path.lexists(folder.with_name(old.name)):
            old.rename(folder.with_name(old.name))


def _place(aside: Path, target: Path, folder: Path) -> None:
    """Rename an output to its path; a folder there is moved to the writer's folder."""
    if aside.is_dir() and target.is_dir():
        if _exchange(aside, target):
            return
        (folder / _OLD).mkdir()
        target.rename(folder / _OLD / target.name)
    os.replace(aside, target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False if the system does not support it."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _sync_tree(path: Path) -> None:
    for inner in (*path.rglob("*"), path):
        _sync(inner)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    if os.name == "nt":  # folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # not every file system can sync folders
            raise
    finally:
        os.close(handle)
