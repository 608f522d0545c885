"""What audio and latents are: the two frozen records that everything else is derived from."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from torch import Tensor

from .errors import PartitaError
from .layouts import ChannelLayout
from .ranges import Count, Finite, Positive, Range, Ranged


@dataclass(frozen=True)
class AudioSpec(Ranged):
    """The audio a network sees.

    Attributes:
        sample_rate: samples a second.
        channels: the width the network sees: 1 for mono alone, else 2.
        layouts: the channel layouts it knows; with several, mono travels as the pair (m, m).
    """

    sample_rate: Count
    channels: Annotated[int, Range(1, 2)]
    layouts: tuple[ChannelLayout, ...]

    def __post_init__(self) -> None:
        """Check that the layouts fit the channels; layouts may be given by name."""
        super().__post_init__()
        object.__setattr__(self, "layouts", tuple(ChannelLayout.parse(layout) for layout in self.layouts))
        if not self.layouts or len(set(self.layouts)) != len(self.layouts):
            raise PartitaError("layouts must name each channel layout once, and at least one")
        width = 1 if self.layouts == (ChannelLayout.MONO,) else 2
        if self.channels != width:
            names = ", ".join(layout.name.lower() for layout in self.layouts)
            remedy = f"set channels to {width}" + (', or layouts to ["mono"]' if self.channels == 1 else "")
            raise PartitaError(f"channels is {self.channels}, but the layouts {names} need {width}; {remedy}")


@dataclass(frozen=True)
class LatentSpec(Ranged):
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
        """Refuse statistics of another width."""
        super().__post_init__()
        for name in ("mean", "std"):
            statistic = getattr(self, name)
            if statistic is not None and len(statistic) != self.dim:
                raise PartitaError(f"{name} has {len(statistic)} channels, the latents have {self.dim}")

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
