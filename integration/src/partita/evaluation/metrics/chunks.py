"""Metrics of decoding in chunks, our own: spectral flux at seams, and errors that grow from chunk to chunk."""

import torch
from partita_blocks.spectral import STFT
from partita_core import Metric, PartitaError, check_signals, config_of, register
from partita_core.ranges import Count, Positive, Samples, Steps
from torch import Tensor

from .spectral import LogMelL1

# Added to flux, so that silence, where nothing changes, has equal flux at seams and elsewhere.
_TINY = 1e-12


@register("metric/seam_excess", example={"chunk": 32_768})
class SeamExcess(Metric):
    """Flux near seams divided by flux far from them, over the same ratio of the reference, less one, in percent.

    Our own metric. Flux is the mean over channels and bins of the change of the log10 magnitude from one frame to the
    next. 0 is no excess; a negative value means that seams are smoother than in the reference, relative to the interior
    of chunks. Its weakness: artifacts in the interior of chunks lower it, so look at `flux` along a chunk.

    The grid of chunks is the model's, and every system is measured on the same one: a model without chunks is the
    control, which should have no excess. With chunks of 32768 samples, the defaults are those of our published values
    of Music2Latent2 (+5 to +7 %).

    Degradations that do not depend on the grid hardly count: a polarity flip and swapped channels are free, a gain is
    free above the floor, a shift by a sample nearly so. Noise and a low-pass change the value as far as the reference
    has different flux at seams. A clip without a seam, `edge` samples from its ends, or without a position far from
    seams cannot be measured.

    Args:
        chunk: samples from seam to seam, at the sample rate of the clips; seams lie at its multiples. None takes the
            models' grid in `partita.evaluation.evaluate`.
        window: length of the Hann window in samples.
        hop: samples between frames.
        floor: added to magnitudes before the logarithm; a window of ones has magnitude `window / 2`.
        near: largest distance from a seam, in samples, that counts as near.
        far: distance from every seam, in samples, beyond which a position counts as far.
        edge: samples left out at both ends.

    Raises:
        PartitaError: the chunk is None, or no position is near a seam or far from all.
    """

    label = "seam excess"
    unit = "%"
    better = "lower"
    any_clip = False

    def __init__(
        self,
        *,
        chunk: Positive | None = None,
        window: Samples = 512,
        hop: Samples = 128,
        floor: Positive = 1e-4,
        near: Count = 320,
        far: Count = 4096,
        edge: Steps = 40_000,
    ) -> None:
        self.chunk = _known(chunk, "seam_excess")
        if not hop / 2 <= near <= far < (self.chunk - hop) / 2:
            raise PartitaError(
                f"seam_excess has chunk {self.chunk:g}, near {near} and far {far}; they must satisfy "
                f"{hop / 2:g} (hop / 2) <= near <= far < {(self.chunk - hop) / 2:g} ((chunk - hop) / 2)"
            )
        self.floor, self.near, self.far, self.edge = floor, near, far, edge
        self.transform = STFT(n_fft=window, win_length=window, hop=hop, padding="center", nyquist=True)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the excess; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float64)
        positions, samples = self.positions(reference), reference.shape[-1]
        seam = (positions / self.chunk).round().clamp(1, max(1, (samples - 1) // self.chunk)) * self.chunk
        distance = (positions - seam).abs()
        inner = (positions >= self.edge) & (positions <= samples - self.edge)
        near, far = inner & (distance <= self.near), inner & (distance > self.far)
        if samples <= self.chunk or not near.any() or not far.any():
            raise PartitaError(
                f"a clip of {samples} samples has no seam between chunks of {self.chunk:g} samples that can be "
                f"measured {self.edge} samples away from its ends; use longer clips or a smaller edge"
            )
        ratios = [
            (flux[near].mean() + _TINY) / (flux[far].mean() + _TINY) for flux in map(self.flux, (estimate, reference))
        ]
        return float(100 * (ratios[0] / ratios[1] - 1))

    def flux(self, signal: Tensor) -> Tensor:
        """Spectral flux `(positions,)` of `(channels, samples)`."""
        return (self.transform(signal).abs() + self.floor).log10().diff(dim=-1).abs().mean((0, 1))

    def positions(self, signal: Tensor) -> Tensor:
        """Positions of `flux` in samples, halfway between the centers of two frames, `(positions,)` float64."""
        hop = self.transform.hop
        return (torch.arange(signal.shape[-1] // hop, dtype=torch.float64) + 0.5) * hop


@register("metric/drift", example={"chunk": 32_768})
class Drift(Metric):
    """Slope of the log-mel error over chunks times `chunks`, relative to the mean error, in percent.

    Our own metric. The error is `LogMelL1` with its default settings; the slope is that of the least-squares line
    through the errors of the complete chunks. Music that gets harder to code has a slope too: average over many clips,
    or look at the difference from a decoder without memory. A clip of fewer than two complete chunks cannot be
    measured; one of much fewer than `chunks` gives a noisy value.

    Errors that are equal in all chunks are not drift: a gain is free above the floor, and so is a polarity flip.
    Noise, a low-pass, a shift by a sample and swapped channels count as far as they cost more at the end than at the
    start, with a negative sign if they cost less.

    Args:
        sample_rate: sample rate of the clips, in Hz.
        chunk: samples per chunk, at the sample rate of the clips. None takes the models' chunks in
            `partita.evaluation.evaluate`.
        chunks: number of chunks over which the rise is stated, for clips of every length.

    Raises:
        PartitaError: the chunk is None, or shorter than the hop of the log-mel error.
    """

    label = "drift"
    unit = "%"
    better = "lower"
    any_clip = False

    def __init__(self, sample_rate: int, *, chunk: Positive | None = None, chunks: Count = 60) -> None:
        self.error, self.chunk, self.chunks = LogMelL1(sample_rate), _known(chunk, "drift"), chunks
        if self.chunk < self.error.hop:
            raise PartitaError(f"drift has chunk {self.chunk:g}; it must be at least {self.error.hop}, the hop")

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the rise; see `Metric`."""
        errors = self.errors(estimate, reference)
        if len(errors) < 2:
            raise PartitaError(
                f"a clip of {reference.shape[-1]} samples has {len(errors)} complete chunks of {self.chunk:g}; drift "
                "needs at least 2"
            )
        mean, steps = errors.mean(), torch.arange(len(errors), dtype=torch.float64)
        steps = steps - steps.mean()
        slope = (steps * errors).sum() / steps.square().sum()
        return float(100 * self.chunks * slope / mean) if mean else 0.0

    def errors(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """Error of each complete chunk, `(chunks,)` float64."""
        error = self.error.differences(estimate, reference).mean((0, 1)).double()
        # A frame belongs to the chunk of its center; at another sample rate, chunks need not be whole frames.
        chunk = (torch.arange(len(error)) * self.error.hop / self.chunk).floor().long()
        complete = int((len(error) - 1) * self.error.hop / self.chunk)
        sums = torch.zeros(int(chunk[-1]) + 1, dtype=error.dtype).index_add(0, chunk, error)
        return (sums / chunk.bincount())[:complete]


def _known(chunk: float | None, name: str) -> float:
    if chunk is None:
        raise PartitaError(f"{name} has no chunk; set its length in samples, such as {name}:chunk=32768")
    return chunk


SeamExcessConfig = config_of(SeamExcess)
DriftConfig = config_of(Drift)
