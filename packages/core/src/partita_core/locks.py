"""Locks: one writer at a time, for as long as its process lives. Nothing is locked where the system has no locks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import PartitaError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

_held: set[int] = set()  # handles of locks, which must not outlive this process in its children


@contextmanager
def file_lock(path: str | Path) -> Iterator[None]:
    """Hold the lock of a file, which is made where there is none; it ends with the process, however that ends.

    Raises:
        PartitaError: another process holds it, or the file cannot be opened.
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
                f"{path.parent} is being written by another process; wait until that has ended, or name another folder"
            )
        if _is_at(handle, path):
            break
        os.close(handle)  # whoever had the lock has removed the file
    _held.add(handle)
    try:
        yield
    finally:
        _release(handle)


@contextmanager
def folder_locked(folder: Path) -> Iterator[bool | None]:
    """Lock a folder, if nobody else has: True, or False; None where there are no locks."""
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
    """Whether a path still leads to what was opened."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(handle))
    return False


def _release(handle: int) -> None:
    if handle in _held:  # else a child has closed it already
        _held.discard(handle)
        os.close(handle)


def _close_held() -> None:
    """Close what a child has of the locks of its parent, so that they end with the parent."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)
