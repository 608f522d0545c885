"""Files that were cut short, found by what the header promises and the end says; nothing is decoded.

libsndfile takes a file of these formats that was cut short for a shorter one. A length that the writer did not know,
since it wrote to a pipe, promises nothing; nor does a file in which the samples are not found.
"""

import os
import struct
from typing import BinaryIO, NamedTuple


class _Chunked(NamedTuple):
    """A format of chunks: where they begin, which holds the samples, how they begin, and what they are padded to."""

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

# What writers to pipes put for a length that they do not know: most of them the largest, ALSA and sox about half of it.
_UNKNOWN = {0, -1, 0x7F000000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF}

# Chunks that are looked at before the samples.
_MOST_CHUNKS = 256

# An Ogg page: "OggS", a version, flags, and some numbers; then how many segments it has, and how long each is.
_PAGE, _LONGEST_PAGE = 27, 27 + 255 + 255 * 255
_LAST = 0x04


def truncation_reason(file: BinaryIO) -> str | None:
    """The part of a WAV, AIFF, AU, CAF or Ogg file that is missing; None if it is whole, or nothing is known of it.

    Args:
        file: the file, at any place; it is left at another.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(4)
    if magic == b"OggS":
        return _ogg(file, size)
    if magic == b".snd":
        begin, length = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        return _cut(begin, length, size)
    place = samples_at(file)
    return place and _cut(*place, size)


def samples_at(file: BinaryIO) -> tuple[int, int] | None:
    """The first byte of the samples of a WAV, AIFF or CAF file, and how many bytes they are; None if none are found.

    Args:
        file: the file, at any place; it is left at another.
    """
    file.seek(0)
    chunked = _CHUNKED.get(file.read(4))
    if chunked is None:
        return None
    at = chunked.begin
    for _ in range(_MOST_CHUNKS):
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
    """The part that is missing of the last page, which has to be marked as such and complete."""
    file.seek(max(0, size - _LONGEST_PAGE))
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(b"OggS", 0, at)) >= 0:
        page = tail[at:]
        if len(page) < _PAGE:
            return "its last page is cut"
        if page[4] == 0:  # else these are four bytes of samples
            length = _PAGE + page[26] + sum(page[_PAGE : _PAGE + page[26]])
            if len(page) < length:
                return "its last page is cut"
            return None if page[5] & _LAST else "the page that ends it is missing"
    return None
