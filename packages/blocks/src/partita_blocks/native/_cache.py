"""The folder in which built kernels are kept, and the checks that a library must pass before it is opened.

A library runs with all rights of the process that opens it. So folder and file must belong to the user, be no links,
and be writable by nobody else; and the name of a file ends in the digest of its content, so that damage shows.
"""

import hashlib
import os
import stat
from pathlib import Path

from partita_core import PartitaError


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/partita`, else `~/.cache/partita`, for the user alone; it is made unless it is there.

    Raises:
        PartitaError: there is no home, or the folder is a link or belongs to another user.
        OSError: it cannot be made.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # it would lead to whatever folder the process is in
        base = Path.home() / ".cache"
    if not base.is_absolute():
        raise PartitaError(f"no place for the fused kernels: the home {base.parent} is relative; set XDG_CACHE_HOME")
    folder = base / "partita"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PartitaError(f"{folder} is not a folder, or is a link to one; remove it, or set XDG_CACHE_HOME")
    if found.st_uid != os.geteuid():
        raise PartitaError(
            f"{folder} belongs to user {found.st_uid}, this process runs as {os.geteuid()}; set XDG_CACHE_HOME"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:  # of an open folder, only what passes `find` is used
        folder.chmod(0o700)
    return folder


def find(folder: Path, name: str) -> Path | None:
    """The library kept as `name`, or None. Files under this name that fail the checks are removed."""
    for path in sorted(folder.glob(f"{name}_*.so")):
        if _is_ours(path) and path.name == _file_name(name, path):
            return path
        path.unlink(missing_ok=True)
    return None


def keep(folder: Path, name: str, library: Path) -> Path:
    """Move a library, built on the same disk, into the folder: whole or not at all, beside other processes too."""
    library.chmod(0o600)
    with library.open("rb") as file:
        os.fsync(file.fileno())
    path = folder / _file_name(name, library)
    os.replace(library, path)
    return path


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    closed = not stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and closed


def _file_name(name: str, library: Path) -> str:
    return f"{name}_{hashlib.sha256(library.read_bytes()).hexdigest()}.so"
