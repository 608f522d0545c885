"""File locks: one writer at a time, until its process ends. Without effect on systems without such locks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import PartitaError

try:
    import fcntl
except ImportError:  # not available on Windows
    fcntl = None

_held: set[int] = set()  # handles of held locks, which child processes must close


@contextmanager
def file_lock(path: str | Path) -> Iterator[None]:
    """Hold the lock of a file, which is created if missing; the lock ends with the process, even if it is killed.

    Raises:
        PartitaError: another process holds the lock, or the file cannot be opened.
    """
    path = Path(path)
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise PartitaError(f"cannot write {path}: {error.strerror or error}") from None
        if _lock(handle) is False:
            os.close(handle)
            raise PartitaError(
                f"{path.parent} is being written by another process; wait until it ends, or use another folder"
            )
        if _is_at(handle, path):
            break
        os.close(handle)  # the previous holder has removed the file
    _held.add(handle)
    try:
        yield
    finally:
        _release(handle)


@contextmanager
def folder_locked(folder: Path) -> Iterator[bool | None]:
    """Try to lock a folder: True if locked, False if another process holds it, None on systems without locks."""
    if fcntl is None:
        yield None
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    _held.add(handle)
    try:
        free = _lock(handle)
        yield free if _is_at(handle, folder) else False
    finally:
        _release(handle)


def _lock(handle: int) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Return True if a path still refers to the opened file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(handle))
    return False


def _release(handle: int) -> None:
    if handle in _held:  # otherwise this is a child that has closed it
        _held.discard(handle)
        os.close(handle)


def _close_held() -> None:
    """Close lock handles inherited by a child process, so that the locks end with the parent."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)
