"""Phase error."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, register
from partita_core.ranges import Positive, Samples
from torch import Tensor

from .base import Metric, pair
from .spectra import spectrum


@register("metric/phase_error")
@dataclass(frozen=True)
class PhaseErrorConfig(Config):
    """Mean absolute difference of the phases of two spectra, weighted by the reference's magnitudes.

    Attributes:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        floor: what has a smaller magnitude has no phase; a full-scale sine has 1.
    """

    window: Samples = 2048
    hop: Samples = 512
    floor: Positive = 1e-5

    def build(self, *, sample_rate: int) -> "PhaseError":
        """Builds the metric; its windows are in samples, whatever the rate."""
        return PhaseError(window=self.window, hop=self.hop, floor=self.floor)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class PhaseError(Metric):
    """Phase error in radians, 0 to pi, the mean over frames, bins and channels by the reference's magnitude.

    A phase that has nothing to do with the reference's has an error of pi/2, and so counts a bin where the estimate is
    silent and the reference is not. Of a reference that is silent throughout the error is pi/2 if the estimate sounds,
    0 if not.

    A gain is free above the floor; a polarity flip is pi, the worst there is. A shift by a sample turns each phase by
    `2 pi f / sample_rate`, so it costs little of a bass and pi/2 of what is at half the highest frequency. Swapped
    channels cost pi/2 where they are unrelated, nothing where they are equal.
    """

    name = "phase_error"
    label = "phase error"
    unit = "rad"
    better = "lower"

    def __init__(self, *, window: int, hop: int, floor: float) -> None:
        self.window, self.hop, self.floor = window, hop, floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        e, r = (spectrum(x, self.window, self.hop) for x in pair(estimate, reference, torch.float64))
        sounds = e.abs() > self.floor
        weight = r.abs()
        weight = torch.where(weight > self.floor, weight, 0)
        if not weight.any():
            return math.pi / 2 if sounds.any() else 0.0
        turn = (e.angle() - r.angle()).abs()
        error = torch.where(sounds, torch.minimum(turn, 2 * math.pi - turn), math.pi / 2)
        return float((weight * error).sum() / weight.sum())
