"""Linear codecs: projections of a lapped transform, fitted to audio by their principal components."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from partita_core import ChannelLayout, PartitaError, TypedModule, convert_pairs, tokens_within, upcast
from torch import Tensor

from .mdct import MDCT

# Components are searched among this many bins, those of the largest weighted variance, so that a fit takes seconds.
MAX_BINS = 1024
# Variance of a bin below the loudest, as a factor, at which weights stop growing.
_MIN_VARIANCE = 1e-6


class LappedProjection(TypedModule):
    """Linear map between the MDCT of one channel, or of mid and side, and a few numbers per frame.

    Until it is fitted, the numbers are the lowest bins, of left and right in turn. An encoder uses `analyze`, a decoder
    `synthesize`; `fit_linear_codec` fits the matrices of both.

    Args:
        channels: channels of the audio: 1, or 2 for mid and side.
        hop: samples per frame.
        numbers: numbers per frame.

    Raises:
        PartitaError: a frame has fewer samples than `numbers`.
    """

    matrix: Tensor  # (numbers, channels, hop)

    def __init__(self, channels: int, hop: int, numbers: int) -> None:
        super().__init__()
        if not 1 <= numbers <= channels * hop:
            raise PartitaError(
                f"{numbers} numbers per frame, but a frame has {channels} x {hop} samples; use 1 to {channels * hop}"
            )
        self.channels, self.hop, self.numbers = channels, hop, numbers
        self.mdct = MDCT(hop)
        index = torch.arange(numbers)
        # Left is the sum of mid and side, right their difference.
        signs = torch.stack([torch.ones(numbers), 1 - 2 * (index % 2)])[:channels] * channels**-0.5
        matrix = torch.zeros(numbers, channels, hop)
        matrix[index, :, index // channels] = signs.mT
        self.register_buffer("matrix", matrix)

    def analyze(self, audio: Tensor) -> Tensor:
        """Project audio `(batch, channels, hop * frames)` to numbers `(batch, numbers, frames)`."""
        bins = self.mdct(audio).flatten(1, 2)
        return self.matrix.flatten(1).to(bins.dtype) @ bins

    def synthesize(self, numbers: Tensor) -> Tensor:
        """Map numbers `(batch, numbers, frames)` to audio `(batch, channels, hop * frames)`."""
        numbers = upcast(numbers)
        bins = self.matrix.flatten(1).to(numbers.dtype).mT @ numbers
        return self.mdct.inverse(bins.unflatten(1, (self.channels, self.hop)))


class FrameCovariance:
    """Covariance of the bins of MDCT frames, about zero, summed over audio.

    Args:
        channels: channels of the audio.
        hop: samples per frame.
        max_bins: number of bins, over all channels, to keep; those of the largest variance in the first audio.
    """

    def __init__(self, channels: int, hop: int, max_bins: int = MAX_BINS) -> None:
        self.mdct, self.max_bins = MDCT(hop), min(max_bins, channels * hop)
        self.frames = 0
        self.bins: Tensor | None = None
        self._total = torch.zeros(self.max_bins, self.max_bins, dtype=torch.float64)

    def add(self, audio: Tensor, lengths: Tensor | None = None) -> None:
        """Add the frames of audio `(batch, channels, hop * frames)` within `lengths` `(batch,)` samples."""
        x = self.mdct(audio.detach().cpu().double()).flatten(1, 2)
        x = tokens_within(x, None if lengths is None else -(-lengths.cpu() // self.mdct.hop))
        if self.bins is None:
            self.bins = x.square().sum(0).topk(self.max_bins).indices.sort().values
        x = x[:, self.bins]
        self._total += x.mT @ x
        self.frames += len(x)

    @property
    def matrix(self) -> Tensor:
        """Covariance `(bins, bins)` float64 of the bins with index `bins`."""
        return self._total / max(1, self.frames)


class Components(NamedTuple):
    """Matrices of a linear codec `(numbers, bins)`, and the fraction of the energy that they keep."""

    analysis: Tensor
    synthesis: Tensor
    kept: float


def principal_components(covariance: Tensor, numbers: int, weighting: float = 0.0) -> Components:
    """Principal components of bins, scaled so that the numbers have a mean square of 1.

    Args:
        covariance: `(bins, bins)` float64.
        numbers: number of components.
        weighting: exponent of the standard deviation by which each bin is divided first. 0 gives the smallest squared
            error; 0.5 keeps more of the quiet upper bins.

    Raises:
        PartitaError: the covariance is zero.
    """
    variance = covariance.diagonal()
    if not variance.max() > 0:
        raise PartitaError("the audio that a linear codec is fitted to is silent")
    weights = variance.clamp_min(_MIN_VARIANCE * variance.max()).pow(-weighting / 2)
    values, vectors = torch.linalg.eigh(weights[:, None] * covariance * weights)
    values, vectors = values.flip(0)[:numbers].clamp_min(0), vectors.flip(1)[:, :numbers]
    # The sign of an eigenvector is arbitrary; the largest entry is positive on every machine.
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    scale = values.mean().rsqrt()
    analysis, synthesis = (vectors * weights[:, None]).mT * scale, (vectors / weights[:, None]).mT / scale
    kept = 1 - _error(covariance, analysis, synthesis) / variance.sum()
    return Components(analysis, synthesis, float(kept))


def _error(covariance: Tensor, analysis: Tensor, synthesis: Tensor) -> Tensor:
    residual = torch.eye(len(covariance), dtype=covariance.dtype) - synthesis.mT @ analysis
    return (residual @ covariance @ residual.mT).trace()


def fit_linear_codec(
    analysis: LappedProjection,
    synthesis: LappedProjection,
    audio: Iterable[tuple[Tensor, Tensor | None]],
    *,
    weighting: float = 0.0,
) -> float:
    """Fit the projections of an encoder and of its decoder to audio.

    Args:
        analysis: projection that the encoder analyzes with.
        synthesis: projection that the decoder synthesizes with.
        audio: batches `(batch, channels, hop * frames)` of mid and side, or of one channel, each with the number of
            samples of its items before their padding, `(batch,)`; None if all are full.
        weighting: see `principal_components`.

    Returns:
        Fraction of the energy that the numbers keep.

    Raises:
        PartitaError: the projections differ in shape, or the audio is silent.
    """
    if analysis.matrix.shape != synthesis.matrix.shape:
        shapes = f"{tuple(analysis.matrix.shape)} and {tuple(synthesis.matrix.shape)}"
        raise PartitaError(f"the linear encoder and decoder have matrices of {shapes} (numbers, channels, hop)")
    numbers, channels, hop = analysis.matrix.shape
    covariance = FrameCovariance(channels, hop, max(MAX_BINS, numbers))
    for batch, lengths in audio:
        covariance.add(batch, lengths)
    found = principal_components(covariance.matrix, numbers, weighting)
    for part, matrix in ((analysis, found.analysis), (synthesis, found.synthesis)):
        full = part.matrix.new_zeros(numbers, channels * hop)
        full[:, covariance.bins] = matrix.to(full)
        part.matrix.copy_(full.view_as(part.matrix))
    return found.kept


def to_mid_side(audio: Tensor, layout: Tensor) -> Tensor:
    """Convert network audio `(batch, channels, samples)` of layouts `(batch,)` to mid and side.

    Mono has a side of zero; a single channel stays as it is.
    """
    mono = layout == ChannelLayout.MONO
    source = torch.where(mono, int(ChannelLayout.STEREO), layout)
    return convert_pairs(audio, source, torch.full_like(layout, ChannelLayout.MID_SIDE))


def from_mid_side(audio: Tensor, layout: Tensor) -> Tensor:
    """Convert mid and side `(batch, channels, samples)` to network audio of layouts `(batch,)`."""
    return convert_pairs(audio, torch.full_like(layout, ChannelLayout.MID_SIDE), layout)
