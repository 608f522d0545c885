"""Classical codecs as references: Opus, codec2, Speex and MP3, by the programs of their Debian packages."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from partita_core import PartitaError
from torch import Tensor
from torch.nn import functional as F

from partita.data.audio.files import read_audio, write_audio

from .classical import ClassicalCodec, Packets, run_program

USAGE = "opus:KBITS[:FRAME_MS][:cbr], codec2:MODE, speex:nb:QUALITY, speex:wb:QUALITY or mp3:KBITS"


@dataclass(frozen=True)
class Opus(ClassicalCodec):
    """Opus (RFC 6716) by `opusenc`; stereo is tuned as music, and mono as what the encoder takes it for.

    Attributes:
        kbits: target in kbit/s.
        frame_ms: length of a frame in ms.
        constant: constant bit rate. At low rates it is far worse than the variable one, the default of the encoder.
    """

    kbits: float
    frame_ms: float = 20
    constant: bool = False
    programs = ("opusenc",)
    package = "opus-tools"
    rates = (8000, 12000, 16000, 24000, 48000)
    mono = False

    def __post_init__(self) -> None:
        if not 6 <= self.kbits <= 256 or self.frame_ms not in (2.5, 5, 10, 20, 40, 60):
            raise ValueError("a rate from 6 to 256 kbit/s, and frames of 2.5, 5, 10, 20, 40 or 60 ms")

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"Opus {self.kbits:g} kbit/s, {self.frame_ms:g} ms{', CBR' * self.constant}"

    def run(self, audio: Tensor, rate: int, folder: Path) -> Packets:
        """Encode and decode; see `ClassicalCodec`."""
        given, coded = folder / "given.wav", folder / "coded.opus"
        write_audio(given, audio, rate, subtype="PCM_16")
        settings = [*["--hard-cbr"] * self.constant, *["--music"] * (audio.shape[0] > 1)]
        settings += ["--bitrate", f"{self.kbits:g}", "--framesize", f"{self.frame_ms:g}"]
        run_program("opusenc", *settings, given, coded)
        # The header holds the delay, and readers skip it.
        return Packets(*read_audio(coded), 0.0, 8 * sum(ogg_packets(coded.read_bytes())))


@dataclass(frozen=True)
class Codec2(ClassicalCodec):
    """codec2, a vocoder for speech at 8 kHz, by `c2enc` and `c2dec`.

    Attributes:
        mode: name of the mode, its bit rate.
    """

    mode: str
    programs = ("c2enc", "c2dec")
    package = "codec2"
    rates = (8000,)
    keeps_waveform = False

    # Bits and samples of a frame. Files hold whole bytes per frame, more than the bits in some modes.
    FRAMES: ClassVar[dict[str, tuple[int, int]]] = {
        "3200": (64, 160),
        "2400": (48, 160),
        "1600": (64, 320),
        "1400": (56, 320),
        "1300": (52, 320),
        "1200": (48, 320),
        "700C": (28, 320),
    }

    def __post_init__(self) -> None:
        if self.mode not in self.FRAMES:
            raise ValueError(f"one of the modes {', '.join(self.FRAMES)}")

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"codec2 {self.mode}"

    def run(self, audio: Tensor, rate: int, folder: Path) -> Packets:
        """Encode and decode; see `ClassicalCodec`."""
        bits, hop = self.FRAMES[self.mode]
        # Measured, as the format states none: the delay at which STOI and ESTOI of validation speech are highest.
        late = 240 if self.mode == "700C" else 160
        frames = -(-(audio.shape[-1] + late) // hop)
        samples = (F.pad(audio[0], (0, frames * hop - audio.shape[-1])) * 32767).round().to(torch.int16)
        given, coded, decoded = (folder / name for name in ("given.raw", "coded.bin", "decoded.raw"))
        given.write_bytes(samples.numpy().astype("<i2").tobytes())
        run_program("c2enc", self.mode, given, coded)
        run_program("c2dec", self.mode, coded, decoded)
        audio = torch.from_numpy(np.fromfile(decoded, "<i2").astype(np.float32) / 32768)[None]
        return Packets(audio, rate, late / rate, frames * bits)


@dataclass(frozen=True)
class Speex(ClassicalCodec):
    """Speex by `speexenc` and `speexdec`, narrow band (8 kHz) or wide band (16 kHz).

    Attributes:
        band: "nb" or "wb".
        quality: 0 to 10.
    """

    band: str
    quality: int
    programs = ("speexenc", "speexdec")
    package = "speex"
    rates = (8000, 16000)

    def __post_init__(self) -> None:
        if self.band not in ("nb", "wb") or not 0 <= self.quality <= 10:
            raise ValueError("nb or wb, and a quality from 0 to 10")

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"Speex {self.band.upper()}, quality {self.quality}"

    def own_rate(self, sample_rate: int) -> int:
        """Sample rate of the band in Hz."""
        return self.rates[self.band == "wb"]

    def run(self, audio: Tensor, rate: int, folder: Path) -> Packets:
        """Encode and decode; see `ClassicalCodec`."""
        given, coded, decoded = (folder / name for name in ("given.wav", "coded.spx", "decoded.wav"))
        hop = rate // 50
        packets = -(-audio.shape[-1] // hop) + 1  # one more for the delay
        # speexdec skips the delay only in streams of several pages, which hold up to 255 packets. Those past the clip
        # are not counted.
        padded = F.pad(audio, (0, hop * max(packets, 260) - audio.shape[-1]))
        write_audio(given, padded, rate, subtype="PCM_16")
        run_program("speexenc", f"-{self.band[0]}", "--quality", self.quality, given, coded)
        run_program("speexdec", coded, decoded)
        return Packets(*read_audio(decoded), 0.0, 8 * sum(ogg_packets(coded.read_bytes())[:packets]))


@dataclass(frozen=True)
class MP3(ClassicalCodec):
    """MP3 by `lame`, at a constant bit rate; the encoder chooses bandwidth and joint stereo.

    Attributes:
        kbits: rate in kbit/s.
    """

    kbits: int
    programs = ("lame",)
    package = "lame"
    rates = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
    mono = False

    def __post_init__(self) -> None:
        if not 8 <= self.kbits <= 320:
            raise ValueError("a rate from 8 to 320 kbit/s")

    @property
    def name(self) -> str:
        """Name in the tables."""
        return f"MP3 {self.kbits} kbit/s"

    def run(self, audio: Tensor, rate: int, folder: Path) -> Packets:
        """Encode and decode; see `ClassicalCodec`."""
        given, coded = folder / "given.wav", folder / "coded.mp3"
        write_audio(given, audio, rate, subtype="PCM_16")
        # Without a tag (-t) the file holds nothing but frames of audio, and readers do not skip a delay.
        mode = ["-m", "m"] if audio.shape[0] == 1 else []
        run_program("lame", "--quiet", "-t", "--cbr", "-b", self.kbits, *mode, given, coded)
        decoded, decoded_rate = read_audio(coded)
        # 576 samples of lame, 529 of the decoder's filter bank.
        return Packets(decoded, decoded_rate, 1105 / decoded_rate, 8 * coded.stat().st_size)


def parse_classical(text: str) -> ClassicalCodec:
    """Classical codec of a text such as `opus:6`, `opus:6:60:cbr`, `codec2:3200`, `speex:nb:2` or `mp3:32`.

    Raises:
        PartitaError: there is no such codec, or it does not have such settings.
    """
    hint = ""
    try:
        match text.split(":"):
            case "opus", kbits, *rest if rest[1:] in ([], ["cbr"]):
                constant = rest[-1:] == ["cbr"]
                return Opus(float(kbits), *map(float, rest[: len(rest) - constant]), constant=constant)
            case "codec2", mode:
                return Codec2(mode)
            case "speex", band, quality:
                return Speex(band, int(quality))
            case "mp3", kbits:
                return MP3(int(kbits))
    except ValueError as error:
        hint = f" ({error})"
    raise PartitaError(f"{text!r} is not a classical codec{hint}; use {USAGE}")


def ogg_packets(data: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg stream of Opus or Speex after its two header packets."""
    sizes, size, position = [], 0, 0
    while position < len(data):
        count = data[position + 26]
        lacing = data[position + 27 : position + 27 + count]
        for value in lacing:  # a packet ends at the first value below 255, perhaps on a later page
            size += value
            if value < 255:
                sizes.append(size)
                size = 0
        position += 27 + count + sum(lacing)
    return sizes[2:]
