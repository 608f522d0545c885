"""How much more changes where chunks meet."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from partita_blocks.spectral import STFT
from partita_core import Config, PartitaError, register
from partita_core.ranges import Count, Positive, Samples, Steps
from torch import Tensor

from partita.evaluation.chunks import known_chunk

from .base import Metric, pair


@register("metric/seam_excess")
@dataclass(frozen=True)
class SeamExcessConfig(Config):
    """Spectral flux at the seams of a grid of chunks against that within chunks, and against the reference's.

    The grid is that of the model in question, and every system is asked for the same: one without chunks is the
    control, which should have no excess. With chunks of 32768 samples the defaults are what the published figures of
    Music2Latent2 (+5 to +7 %) were measured with.

    Attributes:
        chunk: samples from seam to seam, at the rate of the clips; seams lie at its multiples. None is the grid of the
            models, for `partita.evaluation.evaluate` to find out.
        window: length of the Hann window in samples.
        hop: samples between frames.
        floor: added to magnitudes before their logarithm is taken; a window of ones has `window / 2`.
        near: samples around a seam that belong to it, to either side.
        far: samples from every seam beyond which a place is within a chunk.
        edge: samples left out at both ends.
    """

    any_clip: ClassVar[bool] = False

    chunk: Positive | None = None
    window: Samples = 512
    hop: Samples = 128
    floor: Positive = 1e-4
    near: Count = 320
    far: Count = 4096
    edge: Steps = 40_000

    def __post_init__(self) -> None:
        """Refuse a grid on which nothing is far from a seam, or nothing near."""
        super().__post_init__()
        if self.chunk is not None and not self.hop / 2 <= self.near <= self.far < (self.chunk - self.hop) / 2:
            raise PartitaError(
                f"seams every {self.chunk:g} samples, near {self.near} and far {self.far}: need "
                f"{self.hop / 2:g} (half a hop) <= near <= far < {(self.chunk - self.hop) / 2:g} (half a chunk less it)"
            )

    def build(self, *, sample_rate: int) -> "SeamExcess":
        """Builds the metric; all its figures are in samples, whatever the rate.

        Raises:
            PartitaError: the grid is not known.
        """
        return SeamExcess(
            chunk=known_chunk(self, self.chunk),
            window=self.window,
            hop=self.hop,
            floor=self.floor,
            near=self.near,
            far=self.far,
            edge=self.edge,
        )

    @classmethod
    def example(cls) -> Self:
        """The defaults, on the grid of the published figures."""
        return cls(32_768)


class SeamExcess(Metric):
    """Flux near seams divided by that far from them, over the same of the reference, less one, in percent.

    Flux is the mean over channels and bins of how much the logarithm, to base 10, of the magnitude changes from one
    frame to the next. Where chunks meet well it is as everywhere else: 0 is no excess, and a negative figure says that
    seams are smoother than the reference, for the chunks' interior. That faults in the middle of chunks lower the
    figure is its weakness: look at `flux` along a chunk.

    What does not know the grid hardly counts: a polarity flip and swapped channels are free, a gain is above the floor,
    a shift by a sample nearly. Noise and a low-pass move the figure as far as the reference has other flux at seams.

    A clip without a seam, `edge` samples from its ends, or without a place far from them, is refused.
    """

    name = "seam_excess"
    label = "seam excess"
    unit = "%"
    better = "lower"

    def __init__(self, *, chunk: float, window: int, hop: int, floor: float, near: int, far: int, edge: int) -> None:
        self.chunk, self.floor, self.near, self.far, self.edge = chunk, floor, near, far, edge
        self.transform = STFT(n_fft=window, win_length=window, hop=hop, padding="center", nyquist=True)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        estimate, reference = pair(estimate, reference, torch.float64)
        places, samples = self.places(reference), reference.shape[-1]
        seam = (places / self.chunk).round().clamp(1, max(1, (samples - 1) // self.chunk)) * self.chunk
        distance = (places - seam).abs()
        inner = (places >= self.edge) & (places <= samples - self.edge)
        near, far = inner & (distance <= self.near), inner & (distance > self.far)
        if samples <= self.chunk or not near.any() or not far.any():
            raise PartitaError(
                f"no seam of chunks of {self.chunk:g} samples is to be measured in a clip of {samples}, of which "
                f"{self.edge} at both ends are left out"
            )
        ratios = [
            (flux[near].mean() + _TINY) / (flux[far].mean() + _TINY) for flux in map(self.flux, (estimate, reference))
        ]
        return float(100 * (ratios[0] / ratios[1] - 1))

    def flux(self, signal: Tensor) -> Tensor:
        """The flux of `(channels, samples)`, `(places,)`."""
        return (self.transform(signal).abs() + self.floor).log10().diff(dim=-1).abs().mean((0, 1))

    def places(self, signal: Tensor) -> Tensor:
        """Where `flux` is, in samples: between the centers of two frames, `(places,)` float64."""
        hop = self.transform.hop
        return (torch.arange(signal.shape[-1] // hop, dtype=torch.float64) + 0.5) * hop


# Where nothing changes at all, as in silence, as much changes at seams as elsewhere.
_TINY = 1e-12
