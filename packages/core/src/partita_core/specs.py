"""Specifications of audio and latents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor

from .errors import PartitaError
from .layouts import ChannelLayout
from .ranges import Count, Finite, Positive, Range, Ranged

# Default of a field that follows from the others.
_DERIVED: Any = None


@dataclass(frozen=True)
class AudioSpec(Ranged):
    """Specification of the audio that a network takes and returns.

    `AudioSpec(24_000)` is mono, `AudioSpec(44_100, 2)` stereo, and `AudioSpec(44_100, layouts=("mono", "stereo"))`
    has two channels, in which mono is the pair (m, m).

    Attributes:
        sample_rate: samples per second.
        channels: input and output channels of the network: 1 for mono alone, else 2. Follows from `layouts` if left
            out.
        layouts: supported channel layouts, or their names. If left out, mono, or stereo where `channels` is 2.
    """

    sample_rate: Count
    channels: Annotated[int, Range(1, 2)] = _DERIVED
    layouts: tuple[ChannelLayout, ...] = _DERIVED

    if TYPE_CHECKING:

        def __init__(
            self,
            sample_rate: int,
            channels: int = ...,
            layouts: Sequence[ChannelLayout | str] | ChannelLayout | str = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Fill in what was left out, and check that channels and layouts agree."""
        if isinstance(self.channels, ChannelLayout):  # an enumeration of integers: STEREO is 1
            name = self.channels.name
            raise PartitaError(f"channels is ChannelLayout.{name}, a layout; write layouts=ChannelLayout.{name}")
        named: Any = self.layouts
        if named is _DERIVED:
            named = ChannelLayout.STEREO if self.channels == 2 else ChannelLayout.MONO
        named = [named] if isinstance(named, str | ChannelLayout) else named
        layouts = tuple(ChannelLayout.parse(layout) for layout in named)
        width = 1 if layouts == (ChannelLayout.MONO,) else 2
        object.__setattr__(self, "layouts", layouts)
        if self.channels is _DERIVED:
            object.__setattr__(self, "channels", width)
        super().__post_init__()
        if not layouts or len(set(layouts)) != len(layouts):
            raise PartitaError("layouts must name each channel layout once, and at least one")
        if self.channels != width:
            names = ", ".join(layout.name.lower() for layout in self.layouts)
            remedy = f"set channels to {width}" + (', or layouts to ["mono"]' if self.channels == 1 else "")
            raise PartitaError(f"channels is {self.channels}, but the layouts {names} need {width}; {remedy}")


@dataclass(frozen=True)
class LatentSpec(Ranged):
    """Specification of the latents of a model, sufficient to interpret them without the model.

    Attributes:
        dim: channels of one latent vector.
        sample_rate: samples per second of the audio that the latents encode.
        hop: samples of that audio per frame.
        tokens_per_frame: latent vectors per frame (K); more than one where a frame is a set.
        ordered: False if the tokens of a frame have no order in time.
        codebook_sizes: number of codes of each quantizer level; empty for continuous latents.
        mean: per-channel mean over a data set, measured after training; None until then.
        std: per-channel standard deviation over the same data set.
        bounded: True if the values lie in (-1, 1); `Latents.normalize` then maps them through atanh first, and `mean`
            and `std` are statistics of the result.

    Example:
        >>> spec = LatentSpec(dim=64, sample_rate=48_000, hop=960)
        >>> spec.frame_rate  # frames per second
        Fraction(50, 1)
        >>> spec.frames(48_001)  # frames that cover 48001 samples
        51
        >>> LatentSpec(dim=64, sample_rate=48_000, hop=960, codebook_sizes=(1024,) * 8).bit_rate
        4000.0
    """

    dim: Count
    sample_rate: Count
    hop: Count
    tokens_per_frame: Count = 1
    ordered: bool = True
    codebook_sizes: tuple[Annotated[int, Range(1, (1 << 63) - 1)], ...] = ()
    mean: tuple[Finite, ...] | None = None
    std: tuple[Positive, ...] | None = None
    bounded: bool = False

    def __post_init__(self) -> None:
        """Check that the statistics have one value per channel."""
        super().__post_init__()
        for name in ("mean", "std"):
            statistic = getattr(self, name)
            if statistic is not None and len(statistic) != self.dim:
                raise PartitaError(
                    f"{name} has {len(statistic)} values, but dim is {self.dim}; measure the latents again"
                )

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.sample_rate, self.hop)

    @property
    def floats_per_second(self) -> float:
        """Real numbers in the latents of one second of audio."""
        return float(self.dim * self.tokens_per_frame * self.frame_rate)

    @property
    def bit_rate(self) -> float | None:
        """Bits per second of the codes, log2 of the codebook size per code; None for continuous latents."""
        if not self.codebook_sizes:
            return None
        return sum(map(math.log2, self.codebook_sizes)) * self.tokens_per_frame * float(self.frame_rate)

    def frames(self, samples: int) -> int:
        """Number of frames that cover `samples` samples; the last one may be padded."""
        return -(-samples // self.hop)

    def tokens(self, lengths: Tensor) -> Tensor:
        """Number of tokens `(batch,)` that cover items of `lengths` `(batch,)` samples; later tokens are padding."""
        return -(-lengths // self.hop) * self.tokens_per_frame
