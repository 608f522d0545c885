"""Detection of truncated audio files by their headers and last bytes, without decoding.

libsndfile reads a truncated file of these formats as a shorter one. A header without a known length, written to a pipe,
is not checked, nor is a file whose samples are not found.
"""

import os
import struct
from typing import BinaryIO, NamedTuple


class _Chunked(NamedTuple):
    """A format of chunks: offset of the first, name of the one with the samples, their header, and their alignment."""

    begin: int
    samples: bytes
    header: struct.Struct
    pad: int


_CHUNKED = {
    b"RIFF": _Chunked(12, b"data", struct.Struct("<4sI"), 2),
    b"RIFX": _Chunked(12, b"data", struct.Struct(">4sI"), 2),
    b"FORM": _Chunked(12, b"SSND", struct.Struct(">4sI"), 2),
    b"caff": _Chunked(8, b"data", struct.Struct(">4sq"), 1),
}

# Lengths that writers to pipes use for an unknown length: mostly the largest, ALSA and sox about half of it.
_UNKNOWN = {0, -1, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF}

# Maximum number of chunks that are searched for the samples.
_MAX_CHUNKS = 256

# An Ogg page: "OggS", version, flags, and other numbers; then the number of its segments, and the length of each.
_PAGE, _MAX_PAGE = 27, 27 + 255 + 255 * 255
_LAST = 0x04


def truncation_reason(file: BinaryIO) -> str | None:
    """The missing part of a WAV, AIFF, AU, CAF or Ogg file; None if it is complete, or cannot be checked.

    Args:
        file: the file, at any position, which is changed.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(4)
    if magic == b"OggS":
        return _ogg(file, size)
    if magic == b".snd":
        begin, length = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        return _cut(begin, length, size)
    samples = samples_at(file)
    return samples and _cut(*samples, size)


def samples_at(file: BinaryIO) -> tuple[int, int] | None:
    """Offset and number of the bytes of samples in a WAV, AIFF or CAF file; None if they are not found.

    Args:
        file: the file, at any position, which is changed.
    """
    file.seek(0)
    chunked = _CHUNKED.get(file.read(4))
    if chunked is None:
        return None
    at = chunked.begin
    for _ in range(_MAX_CHUNKS):
        file.seek(at)
        header = file.read(chunked.header.size)
        if len(header) < chunked.header.size:
            return None
        name, length = chunked.header.unpack(header)
        at += len(header)
        if name == chunked.samples:
            return at, length
        at += max(0, length + -length % chunked.pad)
    return None


def _cut(begin: int, length: int, size: int) -> str | None:
    there = max(0, size - begin)
    if length in _UNKNOWN or length <= there:
        return None
    return f"{length - there} of {length} bytes of samples are missing"


def _ogg(file: BinaryIO, size: int) -> str | None:
    """The missing part of the last page, which must be complete and marked as the last."""
    file.seek(max(0, size - _MAX_PAGE))
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(b"OggS", 0, at)) >= 0:
        page = tail[at:]
        if len(page) < _PAGE:
            return "its last page is cut"
        if page[4] == 0:  # otherwise, these four bytes are samples
            length = _PAGE + page[26] + sum(page[_PAGE : _PAGE + page[26]])
            if len(page) < length:
                return "its last page is cut"
            return None if page[5] & _LAST else "the page that ends it is missing"
    return None
