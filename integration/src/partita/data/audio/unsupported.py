"""Errors for paths that are not readable files, and for audio in unsupported formats."""

import os
import stat

from partita_core import PartitaError

from .segments import DamagedError

# First bytes of unsupported audio formats, with their offsets.
_UNSUPPORTED = {
    (0, b"\x1aE\xdf\xa3"): "Matroska or WebM",
    (4, b"ftyp"): "MP4 (AAC or ALAC)",
    (0, b"0&\xb2u"): "Windows Media",
    (0, b"wvPk"): "WavPack",
    (0, b"MAC "): "Monkey's Audio",
    (0, b"TTA1"): "True Audio",
    (0, b"MPCK"): "Musepack",
    (0, b"MP+"): "Musepack",
    (0, b"DSD "): "DSD",
    (0, b"#!AMR"): "AMR",
    (0, b"ADIF"): "AAC",
}


def check_beginning(head: bytes) -> None:
    """Raise an error if the first bytes are those of an unsupported format, whatever the name of the file.

    Raises:
        DamagedError: they are.
    """
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        raise DamagedError("it is AAC; convert it to FLAC or WAV")
    for (at, magic), name in _UNSUPPORTED.items():
        if head[at : at + len(magic)] == magic:
            raise DamagedError(f"it is {name}; convert it to FLAC or WAV")


def check_path(name: str) -> None:
    """Raise an error for a path that is not a readable file, which libsndfile would report as a system error."""
    if os.path.isdir(name):
        raise PartitaError(f"{name}: is a folder, not an audio file")
    if not os.path.exists(name):
        raise PartitaError(f"{name}: no such file")
    if not os.access(name, os.R_OK):
        raise PartitaError(f"{name}: cannot be read (permission denied)")
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise PartitaError(f"{name}: is not a regular file but a pipe or a device; copy it to a file first")
    if status.st_size == 0:
        raise PartitaError(f"{name}: is empty (0 bytes)")
