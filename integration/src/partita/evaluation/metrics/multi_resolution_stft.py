"""Multi-resolution STFT distance."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, register
from partita_core.ranges import Positive, Samples
from torch import Tensor

from .base import Metric, pair
from .spectra import magnitudes


@register("metric/multi_resolution_stft")
@dataclass(frozen=True)
class MultiResolutionSTFTConfig(Config):
    """Log-magnitude L1 and spectral convergence, at windows 2048 and 512.

    Attributes:
        windows: lengths of the Hann windows in samples, at every sample rate; the hop is a quarter of each.
        floor: magnitudes below it are taken as it; a full-scale sine has 1.
    """

    windows: tuple[Samples, ...] = (2048, 512)
    floor: Positive = 1e-5

    def build(self, *, sample_rate: int) -> "MultiResolutionSTFT":
        """Builds the metric; its windows are in samples, whatever the rate."""
        return MultiResolutionSTFT(windows=self.windows, floor=self.floor)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class MultiResolutionSTFT(Metric):
    """Log-magnitude L1 plus spectral convergence, the mean over windows and channels.

    Yamamoto et al. 2020 (arXiv 1910.11480), section 2.2, without training.

    For magnitudes E and R of a channel: `mean |ln E - ln R| + ||E - R|| / ||R||`, with Frobenius norms. Silence
    in place of sound has a convergence of 1. Where the reference is silent (no magnitude above the floor), convergence
    has no value and counts as 1, or as 0 if the estimate is silent too.

    A gain of g costs |ln g| + |g - 1| above the floor. Phase does not enter: a polarity flip is free, a shift by a
    sample nearly so. Swapped channels cost their difference.
    """

    name = "multi_resolution_stft"
    label = "MR-STFT"
    unit = ""
    better = "lower"

    def __init__(self, *, windows: tuple[int, ...], floor: float) -> None:
        self.windows = windows
        self.floor = floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        estimate, reference = pair(estimate, reference, torch.float32)
        terms = [self._at(estimate, reference, window) for window in self.windows]
        return float(torch.stack(terms).mean())

    def _at(self, estimate: Tensor, reference: Tensor, window: int) -> Tensor:
        e, r = (magnitudes(x, window, window // 4) for x in (estimate, reference))
        logarithmic = (e.clamp_min(self.floor).log() - r.clamp_min(self.floor).log()).abs().mean((-2, -1))
        convergence = (e - r).norm(dim=(-2, -1)) / r.norm(dim=(-2, -1))
        silent = (r <= self.floor).all(-1).all(-1)
        heard = (e > self.floor).any(-1).any(-1).to(e)
        return (logarithmic + torch.where(silent, heard, convergence)).mean()
