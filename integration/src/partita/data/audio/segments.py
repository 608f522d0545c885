"""Files made of pieces, and the one way in which audio is decoded: forward, without a seek between blocks."""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from io import RawIOBase
from itertools import accumulate
from typing import BinaryIO, cast

import numpy as np
import soundfile


class DamagedError(Exception):
    """A file is not what its beginning promises."""


class Splice(RawIOBase):
    """A read-only file of pieces, each made when it is read.

    Args:
        sizes: bytes of each piece.
        load: makes a piece, given its index.
        tail: zero bytes that follow the last piece.

    Attributes:
        error: exception raised by `load`; a caller in C sees the end of the file instead.
    """

    def __init__(self, sizes: Sequence[int], load: Callable[[int], bytes], tail: int = 0) -> None:
        self._ends = list(accumulate(sizes))
        self._size = (self._ends[-1] if self._ends else 0) + tail
        self._load, self._at, self._held, self._piece = load, 0, -1, b""
        self.error: Exception | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another place; returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The place of the next byte that is read."""
        return self._at

    def readinto(self, buffer) -> int:  # type: ignore[override]
        """Read as many bytes as there are, and as the buffer holds."""
        view, filled = memoryview(buffer).cast("B"), 0
        wanted = max(0, min(len(view), self._size - self._at))
        while filled < wanted and self.error is None:
            part = self._part(wanted - filled)
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._at += len(part)
        return filled

    def _part(self, most: int) -> bytes:
        index = bisect_right(self._ends, self._at)
        if index == len(self._ends):
            return bytes(most)
        if index != self._held:
            begin = self._ends[index - 1] if index else 0
            try:
                self._piece = self._load(index)
                if len(self._piece) != self._ends[index] - begin:
                    raise DamagedError("it has become shorter while it was read")
            except Exception as error:
                self.error = error
                return b""
            self._held = index
        offset = len(self._piece) - (self._ends[index] - self._at)
        return self._piece[offset : offset + most]


class Window:
    """Bytes of a file by their place, read in large pieces."""

    def __init__(self, file: BinaryIO, size: int = 1 << 18) -> None:
        self._file, self._size = file, size
        self._begin, self._bytes = 0, b""

    def __call__(self, at: int, count: int) -> bytes:
        """The `count` bytes from `at` on, or as many as there are."""
        offset = at - self._begin
        if offset < 0 or offset + count > len(self._bytes):
            self._file.seek(at)
            self._begin, self._bytes, offset = at, self._file.read(max(count, self._size)), 0
        return self._bytes[offset : offset + count]


class Decoder(soundfile.SoundFile):
    """libsndfile, reading forward.

    python-soundfile seeks to where it is after every read if a file is seekable, and at a seek decoders lose what they
    carry from frame to frame.
    """

    def __init__(self, file: BinaryIO | Splice) -> None:
        self.source = file
        try:
            super().__init__(cast(BinaryIO, file))
        except BaseException:
            file.close()
            raise

    def seekable(self) -> bool:
        """Never, as far as python-soundfile is concerned."""
        return False

    def close(self) -> None:
        """Close the decoder and its file."""
        super().close()
        self.source.close()

    @property
    def can_seek(self) -> bool:
        """True if libsndfile can begin elsewhere than at the first sample."""
        return super().seekable()

    def fill(self, block: np.ndarray) -> int:
        """Read the samples that follow into `block`, `(samples, channels)` float32; returns how many there are."""
        count = len(self.read(out=block))
        if isinstance(self.source, Splice) and self.source.error is not None:
            raise self.source.error
        return count

    def discard(self, count: int, block_frames: int) -> int:
        """Read `count` samples and drop them; returns how many there were."""
        block, left = np.empty((min(count, block_frames), self.channels), np.float32), count
        while left > 0:
            read = self.fill(block[:left])
            if not read:
                break
            left -= read
        return count - left
