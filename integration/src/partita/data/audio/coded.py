"""Coded audio of which any part can be decoded, and detection of the coding of a file."""

import os
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO, Protocol

from .mpeg import MPEGAudio, begins, tag_size
from .ogg import OggAudio, is_readable
from .recent import RecentFiles
from .segments import Decoder, WholeFile
from .truncation import samples_at
from .unsupported import check_beginning

BLOCK_FRAMES = 1 << 16
"""Samples per channel that are decoded at a time."""

# libsndfile's length of a stream whose header does not give one.
_UNKNOWN_LENGTH = 2**63 - 1

# Codings in which seeking is exact, since samples or blocks of samples are coded independently.
_SEEKABLE = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "ALAC_")

# Counting the frames of a file takes longer than decoding a crop of it; the budget suffices for some hundred hours.
_indices: RecentFiles[MPEGAudio | OggAudio] = RecentFiles(64 << 20, lambda index: index.nbytes)
_lengths: RecentFiles[int] = RecentFiles(4096, lambda _: 1)


class CodedAudio(Protocol):
    """Coded audio of which any part can be decoded; the attributes are those of `AudioInfo`."""

    sample_rate: int
    channels: int
    frames: int
    format: str

    def open(self, start: int, stop: int) -> tuple[Decoder, int]:
        """A decoder for samples `start` to `stop`, and the number of samples that it returns before them."""
        ...


class PlainAudio:
    """Audio that libsndfile decodes by itself: from any position if seeking is exact, else from the start.

    Args:
        reopen: opens the file again.
        key: identifies the file and its contents; None for bytes in memory.
    """

    def __init__(self, reopen: Callable[[], BinaryIO], key: tuple | None) -> None:
        self._reopen = reopen
        with Decoder(WholeFile(reopen())) as decoder:
            self.sample_rate, self.channels = decoder.samplerate, decoder.channels
            self.format, self.frames = f"{decoder.format}/{decoder.subtype}", decoder.frames
            exact = decoder.format == "FLAC" or decoder.subtype.startswith(_SEEKABLE)
            self._seeks = exact and decoder.can_seek
            if decoder.frames == _UNKNOWN_LENGTH or "MPEG" in decoder.subtype:
                known = _lengths.get(key)
                self.frames = decoder.discard(_UNKNOWN_LENGTH, BLOCK_FRAMES) if known is None else known
                _lengths.put(key, self.frames)

    def open(self, start: int, stop: int) -> tuple[Decoder, int]:
        """A decoder for samples `start` to `stop`, and the number of samples that it returns before them."""
        decoder = Decoder(WholeFile(self._reopen()))
        if not self._seeks:
            return decoder, start
        if start:
            decoder.seek(start)
        return decoder, 0


def open_coded(file: BinaryIO, reopen: Callable[[], BinaryIO]) -> tuple[CodedAudio, str | None]:
    """The coded audio of a file, and the part of it that is missing, if it was cut short.

    Args:
        file: the file.
        reopen: opens the file again.

    Raises:
        DamagedError: the file is not supported audio, or is damaged.
    """
    size, key = file.seek(0, os.SEEK_END), None
    if not isinstance(file, BytesIO):
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    known = _indices.get(key)
    if known is not None:
        return known.on(file), None
    begin, head = 0, _head(file, 0)
    while tag := tag_size(head):
        begin, head = begin + tag, _head(file, begin + tag)
    check_beginning(head)
    if begins(head):
        found = MPEGAudio(file, begin, size)
    elif is_readable(head):
        found = OggAudio(file, size)
    else:
        plain = PlainAudio(reopen, key)
        samples = samples_at(file) if "MPEG" in plain.format else None
        if samples is None:
            return plain, None
        found = MPEGAudio(file, samples[0], min(sum(samples), size))
        found.format = plain.format
    if found.cut is None:
        _indices.put(key, found)
    return found, found.cut


def _head(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(27 + 255 + 16)
