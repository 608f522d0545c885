"""Percentile bootstrap confidence intervals of means over clips."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from partita_core import PartitaError, short_repr


@dataclass(frozen=True)
class Interval:
    """A mean over clips and its confidence interval."""

    mean: float
    low: float
    high: float


class Bootstrap:
    """Means with confidence intervals, over one fixed set of resampled clips.

    Each resample draws as many clips as there are, with replacement; the interval lies between percentiles of the
    resampled means (Efron and Tibshirani 1993, chapter 13). The draws depend only on the seed and the number of clips,
    so every metric and every model uses the same resamples and differences are paired. With few clips (under about 20)
    such intervals are too narrow; with one they have no width.

    Args:
        clips: number of clips.
        resamples: number of resampled sets.
        confidence: confidence level of the interval, in (0, 1).
        seed: random seed of the resamples.

    Raises:
        PartitaError: there are no clips or no resamples, the confidence is not between 0 and 1, or the seed is negative
            or does not fit in 63 bits.
    """

    def __init__(self, clips: int, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> None:
        if clips < 1 or resamples < 1:
            raise PartitaError(f"cannot resample {clips} clips {resamples} times; both must be at least 1")
        if not 0 < confidence < 1:
            raise PartitaError(f"confidence is {confidence}; it must be between 0 and 1, such as 0.95")
        if not 0 <= seed < 2**63:
            raise PartitaError(f"the seed of the bootstrap is {short_repr(seed)}; it must be from 0 to 2**63 - 1")
        self.clips, self.confidence = clips, confidence
        generator = np.random.default_rng([seed, clips])
        # Counts of each clip in each resample, so that all means are one matrix product.
        self._counts = generator.multinomial(clips, np.full(clips, 1 / clips), size=resamples).astype(np.float64)

    def interval(self, values: ArrayLike) -> Interval:
        """Return the mean of `(clips,)` values and its interval."""
        return self.intervals(np.asarray(values, np.float64)[None])[0]

    def intervals(self, values: ArrayLike) -> list[Interval]:
        """Return the means of `(rows, clips)` values and their intervals, one per row.

        Raises:
            PartitaError: the number of values in a row is not the number of clips.
        """
        table: NDArray[np.float64] = np.asarray(values, np.float64)
        if table.ndim != 2 or table.shape[1] != self.clips:
            raise PartitaError(f"values have shape {table.shape}; it must be (rows, {self.clips})")
        means = self._counts @ table.T / self.clips
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(means, [tail, 1 - tail], axis=0)
        # Rounding in the product must not put the mean of equal values outside its own interval.
        center = table.mean(axis=1)
        return [
            Interval(float(c), float(min(a, c)), float(max(b, c))) for c, a, b in zip(center, low, high, strict=True)
        ]

    def difference(self, values: ArrayLike, baseline: ArrayLike) -> Interval:
        """Return the mean of the paired differences `values - baseline` and its interval."""
        return self.interval(np.asarray(values, np.float64) - np.asarray(baseline, np.float64))

    def settings(self) -> dict[str, Any]:
        """Confidence level and number of resamples, which a reader needs to interpret the intervals."""
        return {"confidence": self.confidence, "resamples": len(self._counts)}
