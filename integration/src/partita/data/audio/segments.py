"""Byte access for decoding parts of files: spliced files, read windows, and a decoder that only reads forward."""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from io import RawIOBase
from itertools import accumulate
from typing import BinaryIO, cast

import numpy as np
import soundfile

# Positions are 64-bit integers in libsndfile.
_MAX_POSITION = 2**63 - 1


class DamagedError(Exception):
    """A file contradicts its own header."""


class CallbackFile(RawIOBase):
    """A read-only file for the callbacks of libsndfile, where an exception would be lost.

    Positions before its beginning, as damaged headers give, become its beginning.

    Args:
        size: bytes in the file.

    Attributes:
        error: exception raised by a read; libsndfile gets the end of the file instead.
    """

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0
        self.error: Exception | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, min(base + offset, _MAX_POSITION))
        return self._at

    def tell(self) -> int:
        """Position of the next byte to read."""
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes, and return their number."""
        view, filled = memoryview(buffer).cast("B"), 0
        wanted = max(0, min(len(view), self._size - self._at))
        while filled < wanted and self.error is None:
            try:
                count = self._fill(view[filled:wanted])
                if not count:
                    raise DamagedError("it has become shorter while it was read")
                filled += count
                self._at += count
            except Exception as error:
                self.error = error
        return filled

    def _fill(self, view: memoryview) -> int:
        """Copy bytes from the current position on, and return their number."""
        raise NotImplementedError


class WholeFile(CallbackFile):
    """All bytes of an open file; closing this closes the file."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.seek(0, os.SEEK_END))
        self._file = file

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._file.close()

    def _fill(self, view: memoryview) -> int:
        if self._file.tell() != self._at:
            self._file.seek(self._at)
        return cast(RawIOBase, self._file).readinto(view) or 0


class Splice(CallbackFile):
    """A file of pieces, each loaded when it is read.

    Args:
        sizes: bytes per piece.
        load: returns a piece, given its index.
        tail: number of zero bytes after the last piece.
    """

    def __init__(self, sizes: Sequence[int], load: Callable[[int], bytes], tail: int = 0) -> None:
        self._ends = list(accumulate(sizes))
        super().__init__((self._ends[-1] if self._ends else 0) + tail)
        self._load, self._held, self._piece = load, -1, b""

    def _fill(self, view: memoryview) -> int:
        part = self._part(len(view))
        view[: len(part)] = part
        return len(part)

    def _part(self, max_bytes: int) -> bytes:
        index = bisect_right(self._ends, self._at)
        if index == len(self._ends):
            return bytes(max_bytes)
        if index != self._held:
            begin = self._ends[index - 1] if index else 0
            self._piece, self._held = self._load(index), index
            if len(self._piece) != self._ends[index] - begin:
                raise DamagedError("it has become shorter while it was read")
        offset = len(self._piece) - (self._ends[index] - self._at)
        return self._piece[offset : offset + max_bytes]


class Window:
    """Bytes of a file by position, read in large pieces."""

    def __init__(self, file: BinaryIO, size: int = 1 << 18) -> None:
        self._file, self._size = file, size
        self._begin, self._bytes = 0, b""

    def __call__(self, at: int, count: int) -> bytes:
        """The `count` bytes from position `at`, or fewer at the end of the file."""
        offset = at - self._begin
        if offset < 0 or offset + count > len(self._bytes):
            self._file.seek(at)
            self._begin, self._bytes, offset = at, self._file.read(max(count, self._size)), 0
        return self._bytes[offset : offset + count]


class Decoder(soundfile.SoundFile):
    """libsndfile decoder that only reads forward.

    python-soundfile seeks to its current position after every read of a seekable file, and decoders lose their state
    between frames when they seek.
    """

    def __init__(self, source: CallbackFile) -> None:
        self.source = source
        try:
            super().__init__(cast(BinaryIO, source))
        except BaseException:
            source.close()
            if source.error is not None:
                raise source.error from None
            raise

    def seekable(self) -> bool:
        """False, so that python-soundfile does not seek."""
        return False

    def close(self) -> None:
        """Close the decoder and its file."""
        super().close()
        self.source.close()

    @property
    def can_seek(self) -> bool:
        """True if libsndfile can start at a sample other than the first."""
        return super().seekable()

    def fill(self, block: np.ndarray) -> int:
        """Read the next samples into `block`, `(samples, channels)` float32, and return their number."""
        count = len(self.read(out=block))
        if self.source.error is not None:
            raise self.source.error
        return count

    def discard(self, count: int, block_frames: int) -> int:
        """Read and drop up to `count` samples, and return their number."""
        block, left = np.empty((min(count, block_frames), self.channels), np.float32), count
        while left > 0:
            read = self.fill(block[:left])
            if not read:
                break
            left -= read
        return count - left
