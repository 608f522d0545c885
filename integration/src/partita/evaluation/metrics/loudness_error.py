"""Loudness error."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, register
from torch import Tensor

from .base import Metric, pair

# Recommendation ITU-R BS.1770-5, annex 1, tables 1 and 2: the biquads b0, b1, b2, a1, a2 of the K-weighting at 48 kHz,
# a shelf for the head and a high-pass.
_TABLE_RATE = 48_000
_BIQUADS = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285, -1.69065929318241, 0.73248077421585),
    (1.0, -2.0, 1.0, -1.99004745483398, 0.99007225036621),
)
_OFFSET = -0.691  # so that a full-scale sine of 997 Hz in one channel has -3.01 LUFS
_GATE = -70.0  # LUFS, the absolute gate


@register("metric/loudness_error")
@dataclass(frozen=True)
class LoudnessErrorConfig(Config):
    """Difference of integrated loudness by ITU-R BS.1770, which has no settings."""

    def build(self, *, sample_rate: int) -> "LoudnessError":
        """Builds the metric for audio of `sample_rate` Hz."""
        return LoudnessError(sample_rate=sample_rate)

    @classmethod
    def example(cls) -> Self:
        """The only one there is."""
        return cls()


class LoudnessError(Metric):
    """Absolute difference of the gated integrated loudness of whole clips in LU, by ITU-R BS.1770-5.

    What is under the absolute gate counts as -70 LUFS, so that silence has a figure. A clip under 0.4 s is one block.

    A gain costs its dB. A polarity flip is free and so are swapped channels; a shift by a sample nearly is. Noise and a
    low-pass cost what they add to the weighted power and take from it.
    """

    name = "loudness_error"
    label = "loudness error"
    unit = "LU"
    better = "lower"

    def __init__(self, *, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        e, r = (self.loudness(signal) for signal in pair(estimate, reference, torch.float64))
        return abs(e - r)

    def loudness(self, signal: Tensor) -> float:
        """The integrated loudness in LUFS of `(channels, samples)` float64, at least -70."""
        weighted, step = self._weighted(signal), max(1, round(0.1 * self.sample_rate))
        steps = weighted[:, : weighted.shape[-1] // step * step].unflatten(-1, (-1, step)).square().mean(-1)
        # Blocks of 0.4 s, 0.1 s apart.
        blocks = steps.unfold(-1, 4, 1).mean(-1) if steps.shape[-1] >= 4 else weighted.square().mean(-1, keepdim=True)
        power = blocks.sum(0)
        power = power[power > 10 ** ((_GATE - _OFFSET) / 10)]
        if not len(power):
            return _GATE
        return float(_OFFSET + 10 * power[power > power.mean() / 10].mean().log10())

    def _weighted(self, signal: Tensor) -> Tensor:
        samples = signal.shape[-1]
        size = 1 << (samples + self.sample_rate).bit_length()  # the filters have rung out after a second
        frequencies = torch.fft.rfftfreq(size, 1 / self.sample_rate, dtype=torch.float64)
        return torch.fft.irfft(torch.fft.rfft(signal, n=size) * k_weighting(frequencies), n=size)[:, :samples]


def k_weighting(frequencies: Tensor) -> Tensor:
    """The complex response of the K-weighting.

    The standard has filters for 48 kHz, and asks for the same response at other rates, which this is. From 24 kHz on,
    where it has none, it stays as it is there.

    Args:
        frequencies: in Hz, float64 of any shape.

    Returns:
        Gains, complex128 of the same shape.
    """
    angle = 2 * math.pi / _TABLE_RATE * frequencies.clamp_max(_TABLE_RATE / 2)
    delay = torch.polar(torch.ones_like(angle), -angle)
    response = torch.ones_like(delay)
    for b0, b1, b2, a1, a2 in _BIQUADS:
        response = response * (b0 + delay * (b1 + delay * b2)) / (1 + delay * (a1 + delay * a2))
    return response
