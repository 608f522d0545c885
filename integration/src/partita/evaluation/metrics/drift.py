"""Whether errors add up from chunk to chunk."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from partita_core import Config, PartitaError, register
from partita_core.ranges import Count, Positive
from torch import Tensor

from partita.evaluation.chunks import known_chunk

from .base import Metric
from .log_mel_l1 import LogMelL1, LogMelL1Config


@register("metric/drift")
@dataclass(frozen=True)
class DriftConfig(Config):
    """How much the log-mel error rises over so many chunks, relative to its mean.

    Attributes:
        chunk: samples of a chunk, at the rate of the clips. None is a chunk of the models, for
            `partita.evaluation.evaluate` to find out.
        chunks: over how many of them the rise is stated, whatever the length of the clip.
    """

    any_clip: ClassVar[bool] = False

    chunk: Positive | None = None
    chunks: Count = 60

    def build(self, *, sample_rate: int) -> "Drift":
        """Builds the metric, on top of `log_mel_l1` as it is by default, for audio of `sample_rate` Hz.

        Raises:
            PartitaError: the chunk is not known, or shorter than the hop of `log_mel_l1`.
        """
        error, chunk = LogMelL1Config().build(sample_rate=sample_rate), known_chunk(self, self.chunk)
        if chunk < error.hop:
            raise PartitaError(
                f"a chunk of {chunk:g} samples is shorter than the hop of {error.hop} that drift looks with"
            )
        return Drift(error=error, chunk=chunk, chunks=self.chunks)

    @classmethod
    def example(cls) -> Self:
        """The defaults, in chunks of Music2Latent2."""
        return cls(32_768)


class Drift(Metric):
    """The slope of the log-mel error over chunks times `chunks`, relative to the mean error, in percent.

    The slope is that of the line of least squares through the whole chunks' errors. Some music is harder than other,
    which is a slope too: mean over many clips, or look at the difference from a decoder that has no memory. A clip of
    less than two whole chunks is refused; one of much less than `chunks` says little.

    What costs `log_mel_l1` as much in every chunk is no drift: a gain is free above the floor, and so is a polarity
    flip. Noise, a low-pass, a shift by a sample and swapped channels drift as far as they cost more at the end than at
    the start, and below zero as far as they cost less.
    """

    name = "drift"
    label = "drift"
    unit = "%"
    better = "lower"

    def __init__(self, *, error: LogMelL1, chunk: float, chunks: int) -> None:
        self.error, self.chunk, self.chunks = error, chunk, chunks

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        errors = self.errors(estimate, reference)
        if len(errors) < 2:
            raise PartitaError(
                f"a clip of {reference.shape[-1]} samples has {len(errors)} whole chunks of {self.chunk:g}, and drift "
                "needs two"
            )
        mean, steps = errors.mean(), torch.arange(len(errors), dtype=torch.float64)
        steps = steps - steps.mean()
        slope = (steps * errors).sum() / steps.square().sum()
        return float(100 * self.chunks * slope / mean) if mean else 0.0

    def errors(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """The error of each whole chunk, `(chunks,)` float64."""
        error = self.error.differences(estimate, reference).mean((0, 1)).double()
        # A frame is of the chunk that its center is in; of another rate, chunks need not be whole frames.
        chunk = (torch.arange(len(error)) * self.error.hop / self.chunk).floor().long()
        whole = int((len(error) - 1) * self.error.hop / self.chunk)
        sums = torch.zeros(int(chunk[-1]) + 1, dtype=error.dtype).index_add(0, chunk, error)
        return (sums / chunk.bincount())[:whole]
