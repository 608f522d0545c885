"""Bands between the bins of a transform and a few values on a scale of hearing."""

import math

import torch
from partita_core import Constant, PartitaError
from torch import Tensor

# Frequency in Hz at which the scale turns from linear to logarithmic.
_KNEE = 500.0


class Bands:
    """Triangular bands, equally spaced on a scale that is linear at low and logarithmic at high frequencies.

    The triangles add up to one in every bin, so that spreading a constant over the bands gives a constant.

    Args:
        count: number of bands.
        bins: number of bins, which span 0 Hz to half the sample rate.
        sample_rate: samples per second.

    Raises:
        PartitaError: there are more bands than bins.
    """

    def __init__(self, count: int, bins: int, sample_rate: int) -> None:
        if not 1 <= count <= bins:
            raise PartitaError(f"{count} bands of {bins} bins; use 1 to {bins}")
        self.count = count
        frequencies = (torch.arange(bins, dtype=torch.float64, device="cpu") + 0.5) * (sample_rate / (2 * bins))
        scale = (frequencies / _KNEE).asinh()
        position = scale / math.asinh(sample_rate / (2 * _KNEE)) * (count - 1)
        nodes = torch.arange(count, dtype=torch.float64, device="cpu")
        weights = (1 - (position - nodes[:, None]).abs()).clamp_min(0)
        self._spread = Constant(weights)
        # A band narrower than a bin may hold none; it takes the nearest one.
        nearest = torch.zeros_like(weights).scatter(1, (position - nodes[:, None]).abs().argmin(1, keepdim=True), 1.0)
        held = torch.where(weights.sum(1, keepdim=True) > 0, weights, nearest)
        self._mean = Constant(held / held.sum(1, keepdim=True))

    def spread(self, values: Tensor) -> Tensor:
        """Interpolate values `(..., count)` to `(..., bins)`."""
        return values @ self._spread.like(values)

    def mean(self, values: Tensor) -> Tensor:
        """Average values `(..., bins)` to `(..., count)`."""
        return values @ self._mean.like(values).mT
