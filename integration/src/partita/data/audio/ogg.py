"""Ogg Vorbis and Ogg Opus: their exact length, and decoding from any sample.

A stream that was cut out of another, or copied from WebM, does not start at position 0 or has rounded positions, and
libsndfile then seeks to a wrong position or fails. Here, samples are counted by packets, and a part is decoded from a
temporary stream that starts at 0: the header pages and the pages of the part, with positions to match.
Sources: RFC 3533, RFC 6716, RFC 7845 and the Vorbis I specification.
"""

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from copy import copy
from typing import BinaryIO, Protocol

from .segments import DamagedError, Decoder, Splice, Window

_CONTINUED, _FIRST, _LAST = 1, 2, 4

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def is_readable(head: bytes) -> bool:
    """True if the first bytes of a file are Ogg Vorbis or Ogg Opus."""
    return head[:4] == b"OggS" and head[27 + head[26] :].startswith((b"OpusHead", b"\x01vorbis"))


class OggAudio:
    """The pages of the only Vorbis or Opus stream of a file, and the samples that each of them completes.

    Args:
        file: the file.
        end: its size in bytes.

    Attributes:
        frames: samples per channel.
        sample_rate: sample rate in Hz; for Opus, the rate of the encoded audio if the codec supports it.
        channels: number of channels.
        format: container and coding.
        cut: None; truncated Ogg files are detected by their last page.

    Raises:
        DamagedError: the stream is damaged, or another one follows it.
    """

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file, self.cut = file, None
        self._headers: list[tuple[int, int]] = []
        # For each page with samples: offset, size, flags, and samples that are complete at its end.
        self._offsets, self._sizes, self._flags, self._ends = array("Q"), array("I"), bytearray(), array("q")
        self._codec, granules = self._walk(end)
        self.channels, self.format = self._codec.channels, self._codec.format
        self.sample_rate, self._factor = self._codec.sample_rate, self._codec.factor
        self._zero, stop = self._bounds(granules)
        self.frames = max(0, (stop - self._zero) // self._factor)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the index."""
        columns = (self._offsets, self._sizes, self._ends)
        return sum(column.itemsize * len(column) for column in columns) + len(self._flags)

    def on(self, file: BinaryIO) -> "OggAudio":
        """The same stream, for the file opened again."""
        other = copy(self)
        other.file = file
        return other

    def open(self, start: int, stop: int) -> tuple[Decoder, int]:
        """A decoder for samples `start` to `stop`, and the number of samples that it returns before them."""
        begin, end = (self._zero + at * self._factor for at in (start, stop))
        first = min(bisect_right(self._ends, begin - self._codec.preroll), len(self._ends) - 1)
        while first and self._flags[first] & _CONTINUED:
            first -= 1
        last = min(bisect_left(self._ends, end), len(self._ends) - 1)
        pages = self._headers + [(self._offsets[i], self._sizes[i]) for i in range(first, last + 1)]
        # A decoder that starts here lacks earlier packets, and does not return all samples of the page.
        packets, _ = _split(self._page(self._offsets[first], self._sizes[first]), None)
        base = self._ends[first] - self._codec.samples(packets, None)

        def load(piece: int) -> bytes:
            page = bytearray(self._page(*pages[piece]))
            if piece >= len(self._headers):
                page[5] &= ~_LAST
                if struct.unpack_from("<q", page, 6)[0] >= 0:
                    struct.pack_into("<q", page, 6, self._ends[first + piece - len(self._headers)] - base)
            elif piece == 0 and self._codec.skip:
                page[38:40] = bytes(2)  # the caller skips these samples
            struct.pack_into("<II", page, 18, piece, 0)
            struct.pack_into("<I", page, 22, _checksum(page))
            return bytes(page)

        return Decoder(Splice([size for _, size in pages], load)), (begin - base) // self._factor

    def _bounds(self, granules: list[int]) -> tuple[int, int]:
        """Start and end of the audio according to the positions in the pages, in samples counted by packets."""
        known = [index for index, granule in enumerate(granules) if granule >= 0]
        if not known:
            raise DamagedError("it holds no samples")
        first, last, stop = known[0], known[-1], self._ends[-1]
        if self._flags[-1] & _LAST and last == len(granules) - 1:
            before = known[-2] if len(known) > 1 else None
            stop = granules[last] if before is None else self._ends[before] + granules[last] - granules[before]
        # Samples of a cut Vorbis stream before position 0 are left out.
        early = self._ends[first] - granules[first] if first != last and not self._codec.skip else 0
        return self._codec.skip + max(0, early), min(stop, self._ends[-1])

    def _page(self, at: int, size: int) -> bytes:
        self.file.seek(at)
        page = self.file.read(size)
        if len(page) < size or _checksum(page) != struct.unpack_from("<I", page, 22)[0]:
            raise DamagedError(f"the Ogg page at byte {at} is damaged")
        return page

    def _walk(self, end: int) -> tuple["_Codec", list[int]]:
        """Find the pages; return the codec, and the positions in the pages with samples, -1 for none."""
        window, at, serial, codec, headers = Window(self.file), 0, None, None, []
        granules: list[int] = []
        begun: bytes | None = None
        previous: bytes | None = None
        while at + 27 <= end:
            head = window(at, 27 + 255)
            if head[:4] != b"OggS":
                step = window(at + 1, 1 << 16).find(b"OggS")
                at += 1 + (step if step >= 0 else (1 << 16) - 3)
                continue
            flags, granule, number = struct.unpack_from("<BqI", head, 5)
            size = 27 + head[26] + sum(head[27 : 27 + head[26]])
            if at + size > end:
                break
            serial = number if serial is None else serial
            if flags & _FIRST and granules:
                raise DamagedError("several streams are concatenated, of which only one is supported; split the file")
            if number == serial:
                packets, begun = _split(window(at, size), begun, whole=codec is None)
                if codec is None:
                    headers += packets
                    self._headers.append((at, size))
                    codec = _codec(headers)
                elif size > 27:
                    granules.append(granule)
                    self._offsets.append(at)
                    self._sizes.append(size)
                    self._flags.append(flags)
                    samples = codec.samples(packets, previous)
                    self._ends.append(samples + (self._ends[-1] if self._ends else 0))
                    previous = packets[-1] if packets else previous
            at += size
        if codec is None:
            raise DamagedError("it has no audio after its headers")
        return codec, granules


class _Codec(Protocol):
    """Parameters of a codec, from the headers of a stream.

    Attributes:
        factor: samples counted by packets per decoded sample.
        skip: samples to leave out at the start.
        preroll: samples to decode before others, so that these are equal to those of decoding from the start.
    """

    sample_rate: int
    channels: int
    format: str
    factor: int
    skip: int
    preroll: int

    def samples(self, packets: list[bytes], previous: bytes | None) -> int:
        """Samples that packets complete after the packet `previous`, None if there is none."""
        ...


def _codec(headers: list[bytes]) -> _Codec | None:
    """The codec; None if some of its headers are still missing."""
    opus = headers[0][:8] == b"OpusHead" if headers else False
    if len(headers) < (2 if opus else 3):
        return None
    try:
        return _Opus(headers) if opus else _Vorbis(headers)
    except (struct.error, IndexError):
        raise DamagedError("the headers of its Ogg stream are damaged") from None


class _Opus:
    format = "OGG/OPUS"
    # In music modes, the influence of earlier frames has decayed below the last bit of a float after this time. Speech
    # modes predict from period to period and depend on a steady voice for long; nearly all crops are exact.
    preroll, _speech_preroll = 2 * 48000, 30 * 48000

    def __init__(self, headers: list[bytes]) -> None:
        self.channels, self.skip, rate = struct.unpack_from("<BHI", headers[0], 9)
        self.factor = 48000 // rate if rate in (8000, 12000, 16000, 24000) else 1
        self.sample_rate = 48000 // self.factor

    def samples(self, packets: list[bytes], previous: bytes | None) -> int:
        total = 0
        for packet in packets:
            if packet:
                mode, code = packet[0] >> 3, packet[0] & 3
                if mode >= 16:
                    frame = 120 << (mode & 3)
                else:
                    frame = (480, 960)[mode & 1] if mode >= 12 else (480, 960, 1920, 2880)[mode & 3]
                    self.preroll = self._speech_preroll
                total += frame * (packet[1] & 63 if code == 3 and len(packet) > 1 else min(code, 1) + 1)
        return total


class _Vorbis:
    format, factor, skip = "OGG/VORBIS", 1, 0
    # Half of the longest window, by which the output of a decoder that starts in the middle is late.
    preroll = 4096

    def __init__(self, headers: list[bytes]) -> None:
        self.channels, self.sample_rate = struct.unpack_from("<BI", headers[0], 11)
        sizes = [1 << (headers[0][28] & 15), 1 << (headers[0][28] >> 4)]
        windows = [sizes[long] for long in _vorbis_modes(headers[2])]
        mask = (1 << (len(windows) - 1).bit_length()) - 1
        # Window by the first byte of a packet: its lowest bit is 0 for audio, and the bits above are its mode.
        self._windows = [0 if first & 1 else (windows * 64)[first >> 1 & mask] for first in range(256)]

    def samples(self, packets: list[bytes], previous: bytes | None) -> int:
        windows = [self._windows[packet[0]] for packet in packets if packet]
        if previous:
            windows.insert(0, self._windows[previous[0]])
        windows = [window for window in windows if window]
        # Each packet but the first completes a quarter of its window and a quarter of the previous one.
        return (2 * sum(windows) - windows[0] - windows[-1]) // 4 if windows else 0


def _vorbis_modes(setup: bytes) -> list[int]:
    """Modes, 1 for those with the long window, read backwards from the last bit of the third header."""
    bits, modes, found = int.from_bytes(setup, "little"), [], []
    at = bits.bit_length() - 1
    while at >= 41 + 6 and len(modes) < 64:
        at -= 41
        mode = bits >> at
        if mode >> 1 & 0xFFFFFFFF:  # types of window and transform, always 0
            break
        modes.insert(0, mode & 1)
        if bits >> at - 6 & 63 == len(modes) - 1:
            found = list(modes)
    if not found:
        raise DamagedError("the headers of its Vorbis stream are damaged")
    return found


def _split(page: bytes, begun: bytes | None, *, whole: bool = False) -> tuple[list[bytes], bytes | None]:
    """The packets that end on a page, and the beginning of one that continues on the next page.

    Args:
        page: the page.
        begun: the beginning of a packet from the previous page.
        whole: return entire packets, not only their first two bytes, which suffice to count samples.

    A packet whose beginning is not known is left out.
    """
    at, packets, length = 27 + page[26], [], 0
    part = begun if page[5] & _CONTINUED else b""
    for length in page[27:at]:
        if part == b"" or whole and part:
            part += page[at : at + (length if whole else min(length, 2))]
        at += length
        if length < 255:
            if part is not None:
                packets.append(part)
            part = b""
    return packets, part if length == 255 else None


def _checksum(page: bytes | bytearray) -> int:
    """CRC of an Ogg page with its own field set to 0; zlib has the same polynomial in the reverse order of bits."""
    data = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    reflected = zlib.crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED), "big")
