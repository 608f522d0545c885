"""MPEG audio (MP3, MP2 and MP1): its exact length, and decoding from any sample.

Decoders estimate the length from the size of the file, and a decoder that starts in the middle lacks the bits that
earlier frames hold for later ones. Here, frames are counted, and a part is decoded from a temporary stream that starts
early enough. Sources: ISO/IEC 11172-3 and 13818-3; the Xing and LAME headers as LAME writes them.
"""

import struct
from array import array
from copy import copy
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from .segments import DamagedError, Decoder, Splice, Window

_RATES = (44100, 48000, 32000)
_KILOBITS = {
    (1, 1): range(32, 449, 32),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}

# Period in frames of the ring buffer of the synthesis filter, whose position determines the order of its sums.
_RING = 8

# Bytes; longer than any frame.
_MAX_FRAME = 2048

# Samples by which a decoder delays its output, in addition to the encoder's delay in a LAME header.
_DECODER_DELAY = 529

# Earlier frames that the output of a frame depends on: its predecessor, which overlaps, and the one before that.
_OVERLAP = 2


class _Kind(NamedTuple):
    """Properties shared by all frames of a stream."""

    version: int  # 1, or 2 for 2 and 2.5
    layer: int
    rate: int
    channels: int


class _Header(NamedTuple):
    kind: _Kind
    size: int  # bytes of the frame
    side: int  # bytes before its main data: header, checksum and side information


@lru_cache(4096)
def _header(head: bytes) -> _Header | None:
    """The frame header in four bytes; None if they are not one."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer, bitrate, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3 or head[3] & 3 == 2:
        return None
    lsf = version != 3
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _KILOBITS[1 + lsf, min(layer, 2) if lsf else layer][bitrate - 1]
    padding, channels = head[2] >> 1 & 1, 1 if head[3] >> 6 == 3 else 2
    if layer == 1:
        size = (12 * bits // hertz + padding) * 4
    else:
        size = (72 if lsf and layer == 3 else 144) * bits // hertz + padding
    kind = _Kind(1 + lsf, layer, hertz, channels)
    return _Header(kind, size, 4 + 2 * (not head[1] & 1) + _side_information(kind))


def tag_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with these 10 or more bytes; 0 if they are not one."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + 10 * (head[5] >> 4 & 1)


def begins(head: bytes) -> bool:
    """True if the first bytes of a file are MPEG audio."""
    return _header(head[:4]) is not None


class MPEGAudio:
    """The frames of an MPEG stream.

    Args:
        file: the file.
        begin: offset of the first byte of the stream.
        end: offset after its last byte.

    Attributes:
        frames: samples per channel.
        sample_rate: sample rate in Hz.
        channels: number of channels.
        format: container and coding.
        cut: description of the missing part; None if the stream is complete.

    Raises:
        DamagedError: no frames are found, or the sample rate or the number of channels changes.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self.file = file
        self.cut: str | None = None
        self.offsets, self.sizes = array("Q"), array("H")
        self._walk(begin, end)
        if not self.offsets:
            raise DamagedError("no MPEG frames are found")
        self.first = self._read(0)
        head = _header(self.first[:4])
        assert head is not None
        self.kind = head.kind
        version, layer, self.sample_rate, self.channels = head.kind
        self.format = "MP3/MPEG_LAYER_" + "I" * layer
        self.per_frame = 384 if layer == 1 else 576 if layer == 3 and version == 2 else 1152
        self.skip, end_skip = self._info()
        self.frames = max(0, len(self.offsets) * self.per_frame - self.skip - end_skip)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the index."""
        return self.offsets.itemsize * len(self.offsets) + self.sizes.itemsize * len(self.sizes)

    def on(self, file: BinaryIO) -> "MPEGAudio":
        """The same stream, for the file opened again."""
        other = copy(self)
        other.file = file
        return other

    def open(self, start: int, stop: int) -> tuple[Decoder, int]:
        """A decoder for samples `start` to `stop`, and the number of samples that it returns before them."""
        first, last = (start + self.skip) // self.per_frame, (stop + self.skip - 1) // self.per_frame
        first = max(0, first - _OVERLAP) // _RING * _RING
        # A silent frame comes first, which gives the properties of the stream and holds the bits of earlier frames.
        silent = self._silent(self._reservoir(first))

        def load(piece: int) -> bytes:
            return self._read(first + piece - 1) if piece else silent

        # The decoder stops at the length that it estimates from the size of the file, so the size is increased.
        sizes = [len(silent), *self.sizes[first : last + 1]]
        decoder = Decoder(Splice(sizes, load, tail=len(sizes) * _MAX_FRAME))
        return decoder, start + self.skip - (first - 1) * self.per_frame

    def _walk(self, begin: int, end: int) -> None:
        window, at, kind = Window(self.file), begin, None
        while True:
            head = _header(window(at, 4)) if at + 4 <= end else None
            if head is None or head.kind != kind:
                at, head = _sync(window, at, end, kind)
                if head is None:
                    return
                if kind is not None and head.kind != kind:
                    was, now = (f"{one.rate} Hz with {one.channels} channels" for one in (kind, head.kind))
                    raise DamagedError(f"its MPEG audio changes from {was} to {now}; split the file")
                kind = head.kind
            if at + head.size > end:
                self.cut = f"{at + head.size - end} of {head.size} bytes of its last frame are missing"
                return
            self.offsets.append(at)
            self.sizes.append(head.size)
            at += head.size

    def _info(self) -> tuple[int, int]:
        """Samples to skip at the start and at the end according to a Xing or LAME header frame, which is dropped."""
        at = 4 + _side_information(self.kind)
        tag = self.first[at : at + 4] if len(self.first) >= at + 12 else b""
        if self.kind.layer != 3 or tag not in (b"Xing", b"Info"):
            if self.first[36:40] == b"VBRI":
                del self.offsets[0], self.sizes[0]
            return 0, 0
        flags, count = struct.unpack(">II", self.first[at + 4 : at + 12])
        at += 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
        del self.offsets[0], self.sizes[0]
        there = len(self.offsets)
        # Some encoders count the header frame as well.
        if flags & 1 and there < count - 1:
            self.cut = self.cut or f"{count - there} of {count} frames are missing"
        if self.first[at : at + 4] not in (b"LAME", b"Lavf", b"Lavc"):
            return 0, 0
        delays = int.from_bytes(self.first[at + 21 : at + 24], "big")
        start, end = (delays >> 12) + _DECODER_DELAY, max(0, (delays & 0xFFF) - _DECODER_DELAY)
        # In concatenated files, the header is that of the first file.
        return start, end if there <= count else 0

    def _reservoir(self, index: int) -> bytes:
        """The bytes of earlier frames to which a frame can refer."""
        needed, held = 0 if self.kind.layer < 3 else 511 if self.kind.version == 1 else 255, b""
        while index and len(held) < needed:
            index -= 1
            frame = self._read(index)
            head = _header(frame[:4])
            held = frame[head.side if head else 4 :] + held
        return held[max(0, len(held) - needed) :]

    def _silent(self, reservoir: bytes) -> bytes:
        """A silent frame without a checksum (for layer 3, of maximum size) that ends with a reservoir."""
        bitrate = 0xE0 if self.kind.layer == 3 else self.first[2] & 0xF0
        head = bytes((0xFF, self.first[1] | 1, bitrate | self.first[2] & 0x0D, self.first[3]))
        found = _header(head)
        assert found is not None
        return head + bytes(found.size - 4 - len(reservoir)) + reservoir

    def _read(self, index: int) -> bytes:
        self.file.seek(self.offsets[index])
        return self.file.read(self.sizes[index])


def _side_information(kind: _Kind) -> int:
    if kind.layer != 3:
        return 0
    return ((17, 32) if kind.version == 1 else (9, 17))[kind.channels - 1]


def _sync(window: Window, at: int, end: int, kind: _Kind | None) -> tuple[int, _Header | None]:
    """Offset and header of the next frame from `at` on, skipping tags and other bytes."""
    while at + 4 <= end:
        if tag := tag_size(window(at, 10)):
            at += tag
            continue
        head = _header(window(at, 4))
        if head is not None:
            # Four bytes may look like a header by chance; several consecutive frames do not.
            wanted = 2 if kind in (None, head.kind) else 4
            if _run(window, at, end, wanted) == wanted:
                return at, head
        step = window(at + 1, 1 << 16).find(b"\xff")
        at += 1 + (step if step >= 0 else 1 << 16)
    return at, None


def _run(window: Window, at: int, end: int, wanted: int) -> int:
    """Number of consecutive frames of one kind, up to `wanted`; `wanted` as well if the stream ends after them."""
    first, found = _header(window(at, 4)), 0
    assert first is not None
    while found < wanted:
        head = _header(window(at, 4))
        if head is None or head.kind != first.kind:
            return wanted if found and (at == end or window(at, 3) in (b"TAG", b"ID3", b"APE")) else found
        found += 1
        at += head.size
    return found
