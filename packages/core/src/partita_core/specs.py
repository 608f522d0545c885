"""What audio and latents are: the two frozen records that everything else is derived from."""

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from .errors import PartitaError
from .layouts import ChannelLayout


@dataclass(frozen=True)
class AudioSpec:
    """The audio a network sees.

    Attributes:
        sample_rate: samples a second.
        channels: the width the network sees: 1 for mono alone, else 2.
        layouts: the channel layouts it knows; with several, mono travels as the pair (m, m).
    """

    sample_rate: int
    channels: int
    layouts: tuple[ChannelLayout, ...]

    def __post_init__(self) -> None:
        """Refuses what no network can be."""
        _check_figure("sample_rate", self.sample_rate)
        if not self.layouts or len(set(self.layouts)) != len(self.layouts):
            raise PartitaError("layouts must name each channel layout once, and at least one")
        width = 1 if self.layouts == (ChannelLayout.MONO,) else 2
        if self.channels != width:
            names = ", ".join(layout.name.lower() for layout in self.layouts)
            raise PartitaError(f"channels is {self.channels}, but the layouts {names} need {width}")


@dataclass(frozen=True)
class LatentSpec:
    """The latents a model makes; enough to read them without the model.

    Attributes:
        dim: width of one latent vector.
        sample_rate: samples a second of the audio they describe.
        hop: samples of that audio in a frame.
        tokens_per_frame: latent vectors a frame (K); more than one where a frame is a set.
        ordered: False where the tokens of a frame have no order in time.
        codebook_sizes: number of codes of each quantizer level; empty for continuous latents.
        mean: per-channel mean over a data set, measured after training; None until then.
        std: per-channel standard deviation, likewise.
        bounded: the values lie in (-1, 1); `Latents.normalize` then takes them through atanh, and `mean` and
            `std` are those of the result.
    """

    dim: int
    sample_rate: int
    hop: int
    tokens_per_frame: int = 1
    ordered: bool = True
    codebook_sizes: tuple[int, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bounded: bool = False

    def __post_init__(self) -> None:
        """Refuses what no latent can be."""
        for name in ("dim", "sample_rate", "hop", "tokens_per_frame"):
            _check_figure(name, getattr(self, name))
        for size in self.codebook_sizes:
            if not 1 <= size < 2**63:
                raise PartitaError(f"codebook_sizes has a level of {size}; a level has from 1 to 2**63 - 1 codes")
        for name in ("mean", "std"):
            statistic = getattr(self, name)
            if statistic is None:
                continue
            if len(statistic) != self.dim:
                raise PartitaError(f"{name} has {len(statistic)} channels, the latents have {self.dim}")
            if not all(map(math.isfinite, statistic)) or (name == "std" and min(statistic) <= 0):
                raise PartitaError(f"{name} holds what no {name} is; measure the latents again")

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(self.sample_rate, self.hop)

    def frames(self, samples: int) -> int:
        """Frames that `samples` samples take, the last one padded."""
        return -(-samples // self.hop)

    def tokens(self, lengths: Tensor) -> Tensor:
        """Tokens that hold audio of items of `lengths` `(batch,)` samples; what follows them is padding."""
        return -(-lengths // self.hop) * self.tokens_per_frame


def _check_figure(name: str, value: int) -> None:
    """Rates, widths and hops are positive, and small enough to be counted with in 64 bits."""
    if not 1 <= value < 2**31:
        raise PartitaError(f"{name} is {value}; it must be positive, and less than 2**31")
