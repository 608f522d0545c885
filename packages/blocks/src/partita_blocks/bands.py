"""Bands between the bins of a transform and a few values on a scale of hearing, and log magnitudes as features."""

import math

import torch
from partita_core import Constant, PartitaError
from torch import Tensor

# Frequency in Hz at which the scale turns from linear to logarithmic.
_KNEE = 500.0
# Log amplitude of typical speech relative to white noise of unit power: at 0 Hz, and per unit of the scale.
_LEVEL, _SLOPE = -4.5, -0.9
# Energy of an MDCT bin below which its logarithm is flat.
_FLOOR = 1e-8

LOG_CENTER, LOG_SCALE = -5.0, 0.4
"""Typical logarithm of the magnitude of an MDCT bin, and the factor that brings logarithms to about unit variance."""


def node_frequencies(count: int, top: float) -> Tensor:
    """Frequencies in Hz `(count,)` float64 of nodes from 0 Hz to `top`, equally spaced in arcsinh(f / 500 Hz)."""
    positions = torch.arange(count, dtype=torch.float64, device="cpu") / (count - 1)
    return _KNEE * (positions * math.asinh(top / _KNEE)).sinh()


def node_weights(frequencies: Tensor, count: int, top: float) -> tuple[Tensor, Tensor]:
    """Triangular weights of the nodes of `node_frequencies`.

    Args:
        frequencies: frequencies of the bins in Hz, `(bins,)`.
        count: number of nodes.
        top: frequency of the last node in Hz.

    Returns:
        Weights `(count, bins)`, which add up to one in every bin, and distances between nodes and bins in nodes.
    """
    position = (frequencies / _KNEE).asinh() / math.asinh(top / _KNEE) * (count - 1)
    distance = (position - torch.arange(count, dtype=frequencies.dtype, device=frequencies.device)[:, None]).abs()
    return (1 - distance).clamp_min(0), distance


def typical_log_amplitude(frequencies: Tensor) -> Tensor:
    """Log amplitude of typical speech at frequencies in Hz, relative to white noise of unit power."""
    return _LEVEL + _SLOPE * (frequencies / _KNEE).asinh()


def log_magnitude(energy: Tensor) -> Tensor:
    """Natural logarithm of the magnitudes of MDCT bins or bands, from their energies; flat at silence."""
    return (energy + _FLOOR).log() / 2


def standardize_logs(logs: Tensor) -> Tensor:
    """Shift and scale log magnitudes to about zero mean and unit variance, as the input of a network."""
    return (logs - LOG_CENTER) * LOG_SCALE


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
        weights, distance = node_weights(frequencies, count, sample_rate / 2)
        self._spread = Constant(weights)
        # A band narrower than a bin may hold none; it takes the nearest one.
        nearest = torch.zeros_like(weights).scatter(1, distance.argmin(1, keepdim=True), 1.0)
        held = torch.where(weights.sum(1, keepdim=True) > 0, weights, nearest)
        self._mean = Constant(held / held.sum(1, keepdim=True))

    def spread(self, values: Tensor) -> Tensor:
        """Interpolate values `(..., count)` to `(..., bins)`."""
        return values @ self._spread.like(values)

    def mean(self, values: Tensor) -> Tensor:
        """Average values `(..., bins)` to `(..., count)`."""
        return values @ self._mean.like(values).mT
