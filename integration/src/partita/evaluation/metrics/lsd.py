"""Log-spectral distance."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, register
from partita_core.ranges import Positive, Samples
from torch import Tensor

from .base import Metric, pair
from .spectra import magnitudes


@register("metric/lsd")
@dataclass(frozen=True)
class LogSpectralDistanceConfig(Config):
    """Root mean square over frequency of the difference of levels in dB.

    Attributes:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        floor: magnitudes below it are taken as it; a full-scale sine has 1.
    """

    window: Samples = 2048
    hop: Samples = 512
    floor: Positive = 1e-5

    def build(self, *, sample_rate: int) -> "LogSpectralDistance":
        """Builds the metric; its windows are in samples, whatever the rate."""
        return LogSpectralDistance(window=self.window, hop=self.hop, floor=self.floor)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class LogSpectralDistance(Metric):
    """Log-spectral distance in dB (Gray and Markel 1976, with the L2 norm), the mean over frames and channels.

    For magnitudes E and R of a frame: the root of the mean over bins of `(20 log10 E/R)^2`. Every bin counts alike, the
    loudest and the faintest, so the figure is that of the high frequencies and of what lies between tones.

    A gain of g costs |20 log10 g| dB above the floor. Phase does not enter: a polarity flip is free; a shift by a
    sample costs little, in the faintest bins. Swapped channels cost their difference.
    """

    name = "lsd"
    label = "LSD"
    unit = "dB"
    better = "lower"

    def __init__(self, *, window: int, hop: int, floor: float) -> None:
        self.window, self.hop, self.floor = window, hop, floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        e, r = (self._level(signal) for signal in pair(estimate, reference, torch.float32))
        return float((e - r).square().mean(1).sqrt().mean())

    def _level(self, signal: Tensor) -> Tensor:
        return 20 * magnitudes(signal, self.window, self.hop).clamp_min(self.floor).log10()
