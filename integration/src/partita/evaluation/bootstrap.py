"""How sure a mean over clips is: percentile bootstrap intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from partita_core import PartitaError, short_repr


@dataclass(frozen=True)
class Interval:
    """A mean over clips, and the interval that it is in with the stated confidence."""

    mean: float
    low: float
    high: float


class Bootstrap:
    """Means with confidence intervals, over one fixed set of resampled clips.

    Clips are drawn with replacement, as many as there are, `resamples` times; the interval is between the percentiles
    of the means (Efron and Tibshirani 1993, chapter 13). The draws depend on the seed and the number of clips alone,
    so every metric and every model is resampled alike and differences are paired. With few clips (under about 20) such
    intervals are too narrow; with one they have no width.

    Args:
        clips: number of clips.
        resamples: number of resampled sets.
        confidence: the probability that the interval is to hold, in (0, 1).
        seed: of the draws.

    Raises:
        PartitaError: there is no clip or no resample, the confidence is no probability, or the seed is negative or
            does not fit in 64 bits.
    """

    def __init__(self, clips: int, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> None:
        if clips < 1 or resamples < 1:
            raise PartitaError(f"cannot resample {clips} clips {resamples} times; both must be at least 1")
        if not 0 < confidence < 1:
            raise PartitaError(f"confidence is {confidence}; it must be between 0 and 1, as 0.95")
        if not 0 <= seed < 2**63:
            raise PartitaError(f"the seed is {short_repr(seed)}; that of resampled clips must be from 0 to 2**63 - 1")
        self.clips, self.confidence = clips, confidence
        generator = np.random.default_rng([seed, clips])
        # How often each clip is in each set: all means are then one matrix product.
        self._counts = generator.multinomial(clips, np.full(clips, 1 / clips), size=resamples).astype(np.float64)

    def interval(self, values: ArrayLike) -> Interval:
        """The mean of `(clips,)` values and its interval."""
        return self.intervals(np.asarray(values, np.float64)[None])[0]

    def intervals(self, values: ArrayLike) -> list[Interval]:
        """The means of `(rows, clips)` values and their intervals, one a row.

        Raises:
            PartitaError: the number of values in a row is not the number of clips.
        """
        table: NDArray[np.float64] = np.asarray(values, np.float64)
        if table.ndim != 2 or table.shape[1] != self.clips:
            raise PartitaError(f"values are {table.shape}; (rows, {self.clips}) is expected")
        means = self._counts @ table.T / self.clips
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(means, [tail, 1 - tail], axis=0)
        # The product's rounding must not put a constant's mean outside its own interval.
        center = table.mean(axis=1)
        return [
            Interval(float(c), float(min(a, c)), float(max(b, c))) for c, a, b in zip(center, low, high, strict=True)
        ]

    def difference(self, values: ArrayLike, baseline: ArrayLike) -> Interval:
        """The mean of the differences `values - baseline`, clip by clip, and its interval."""
        return self.interval(np.asarray(values, np.float64) - np.asarray(baseline, np.float64))

    def settings(self) -> dict[str, Any]:
        """What a reader needs to interpret the intervals."""
        return {"confidence": self.confidence, "resamples": len(self._counts)}
