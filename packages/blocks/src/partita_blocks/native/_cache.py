"""Cache folder of the compiled kernels, and the checks that a library must pass before it is loaded.

A library runs with all rights of the process that loads it. Therefore the folder and the file must belong to the user,
must not be links, and must not be writable by others; and the name of a file ends in the digest of its content, so that
damage is detected.
"""

import hashlib
import os
import stat
from pathlib import Path

from partita_core import PartitaError


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/partita` or `~/.cache/partita`, private to the user, created if needed.

    Raises:
        PartitaError: there is no home folder, or the cache folder is a link or belongs to another user.
        OSError: the folder cannot be created.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # a relative path would depend on the working directory
        base = Path.home() / ".cache"
    if not base.is_absolute():
        raise PartitaError(f"the home folder {base.parent} is a relative path; set XDG_CACHE_HOME to an absolute one")
    folder = base / "partita"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PartitaError(f"{folder} is not a folder, or is a link to one; remove it, or set XDG_CACHE_HOME")
    if found.st_uid != os.geteuid():
        raise PartitaError(
            f"{folder} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}; set XDG_CACHE_HOME"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:  # its files are checked by `find_library` in any case
        folder.chmod(0o700)
    return folder


def find_library(folder: Path, name: str) -> Path | None:
    """Path of the library stored as `name`, or None; files of this name that fail the checks are removed."""
    for path in sorted(folder.glob(f"{name}_*.so")):
        if _is_ours(path) and path.name == _file_name(name, path):
            return path
        path.unlink(missing_ok=True)
    return None


def store_library(folder: Path, name: str, library: Path) -> Path:
    """Move a library, built on the same disk, into the folder atomically, safe with concurrent processes."""
    library.chmod(0o600)
    with library.open("rb") as file:
        os.fsync(file.fileno())
    path = folder / _file_name(name, library)
    os.replace(library, path)
    return path


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    private = not stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and private


def _file_name(name: str, library: Path) -> str:
    return f"{name}_{hashlib.sha256(library.read_bytes()).hexdigest()}.so"
