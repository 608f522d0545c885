"""Interface of classical codecs: a clip is encoded and decoded by programs, and aligned."""

import math
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

from partita_core import PartitaError, escape_unprintable
from torch import Tensor

from partita.data.audio.resampling import resample

from .alignment import align

_TIMEOUT = 600.0
# Codecs that keep the waveform are aligned within this many seconds of their known delay, which resampling shifts.
_SLACK = 250e-6


class Coded(NamedTuple):
    """Clip that was encoded and decoded: audio in its shape, and bits of the packets, without the container."""

    audio: Tensor
    bits: int


class Packets(NamedTuple):
    """Output of a decoder: audio, its sample rate in Hz, its delay in seconds, and the bits it was decoded from."""

    audio: Tensor
    sample_rate: int
    delay: float
    bits: int


class ClassicalCodec(ABC):
    """A codec that is not learned; `classical_codecs.parse_classical` makes one from a text.

    Attributes:
        programs: programs that it runs.
        package: Debian package of the programs.
        rates: sample rates in Hz at which it codes.
        mono: True if it codes one channel; stereo is averaged, and the decoded channel repeated.
        keeps_waveform: True if correlation with the clip finds the delay. For a vocoder it finds a period of the voice.
    """

    programs: ClassVar[tuple[str, ...]]
    package: ClassVar[str]
    rates: ClassVar[tuple[int, ...]]
    mono: ClassVar[bool] = True
    keeps_waveform: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the tables."""

    @abstractmethod
    def run(self, audio: Tensor, rate: int, folder: Path) -> Packets:
        """Encode and decode audio `(channels, samples)` in [-1, 1] at its own rate, with files in an empty folder."""

    def own_rate(self, sample_rate: int) -> int:
        """Sample rate in Hz at which audio of `sample_rate` is encoded: the lowest that keeps all of it, if any."""
        return min((rate for rate in self.rates if rate >= sample_rate), default=max(self.rates))

    def missing(self) -> list[str]:
        """Programs that are not installed."""
        return [program for program in self.programs if shutil.which(program) is None]

    def code(self, audio: Tensor, sample_rate: int) -> Coded:
        """Encode and decode a clip.

        Args:
            audio: clip `(channels, samples)` of 1 or 2 channels; samples beyond [-1, 1] are clipped.
            sample_rate: sample rate of the clip in Hz.

        Returns:
            Audio in the shape of the clip, its delay compensated, and the bits of its packets.

        Raises:
            PartitaError: a program is not installed, fails, or takes too long.
        """
        if missing := self.missing():
            raise PartitaError(f"{self.name} needs {' and '.join(missing)}: `apt-get install {self.package}`")
        rate = self.own_rate(sample_rate)
        given = audio.mean(0, keepdim=True) if self.mono else audio
        given = resample(given.detach().cpu().float(), sample_rate, rate).clamp(-1, 1)
        with tempfile.TemporaryDirectory(prefix="partita_") as folder:
            found = self.run(given, rate, Path(folder))
        search = math.ceil(_SLACK * sample_rate) if self.keeps_waveform else 0
        decoded = resample(found.audio, found.sample_rate, sample_rate)
        return Coded(align(decoded, audio, known=round(found.delay * sample_rate), search=search), found.bits)


def run_program(program: str, *arguments: object) -> None:
    """Run a program silently.

    Raises:
        PartitaError: it fails, or takes too long.
    """
    command = [program, *map(str, arguments)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise PartitaError(f"{program} takes more than {_TIMEOUT:g} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = escape_unprintable(lines[-1]) if lines else "no message"
        raise PartitaError(f"{program} failed with exit code {done.returncode}: {reason}")
