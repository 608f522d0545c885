"""Excitation of a voice: pulses of a given fundamental frequency, and reproducible white noise."""

import math

import torch
from partita_core import TypedModule
from torch import Tensor

from .pitch import PitchScale

# Harmonics reach up to this fraction of half the sample rate.
_BAND = 0.9875
_MASK = 0xFFFFFFFF
_ROUNDS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))


class PulseTrain(TypedModule):
    """Band-limited pulses of unit power, all harmonics in phase, whose frequency is given per frame.

    Frequencies are interpolated exponentially between the centers of frames. The phase at the center of each frame is
    computed by `phases`, so that pulses depend on nearby frames only, and streams continue them exactly.

    Args:
        sample_rate: samples per second.
        hop: samples per frame.
        scale: scale of the fundamental frequency.

    Raises:
        PartitaError: the sample rate is too low for the scale.
    """

    def __init__(self, sample_rate: int, hop: int, scale: PitchScale) -> None:
        super().__init__()
        scale.check(sample_rate)
        self.hop, self.scale = hop, scale
        self.seconds, self.limit = hop / sample_rate, _BAND * sample_rate / 2

    def phases(self, position: Tensor, before: Tensor, start: Tensor) -> Tensor:
        """Phase in cycles at the center of each frame, `(batch, frames)` float64 in [0, 1).

        Args:
            position: position of each frame on the scale, `(batch, frames)`.
            before: position of the frame before, `(batch, 1)`; at the beginning that of the first frame.
            start: phase at the center of the frame before, `(batch, 1)`.
        """
        position = torch.cat([before, position], dim=1).double()
        frequency = self.scale.frequency(position)
        slope = frequency.log().diff(dim=1)
        return (start + (self.seconds * frequency[:, :-1] * _mean_growth(slope)).cumsum(1)) % 1

    def forward(self, position: Tensor, phase: Tensor) -> Tensor:
        """Make pulses `(batch, hop * frames)` from positions and phases `(batch, frames)`, in at least float32.

        Beyond the ends the frequency is constant.
        """
        frequency = self.scale.frequency(position.double())
        slope = torch.cat([frequency[:, :1], frequency, frequency[:, -1:]], dim=1).log().diff(dim=1)[..., None]
        time = (torch.arange(self.hop, device=position.device, dtype=torch.float64) + 0.5) / self.hop - 0.5
        growth = torch.where(time < 0, slope[:, :-1], slope[:, 1:]) * time
        frequency = frequency[..., None]
        cycles = phase[..., None] + self.seconds * frequency * time * _mean_growth(growth)
        harmonics = (self.limit / (frequency * growth.exp())).to(position.dtype)
        offset = (cycles - cycles.round()).to(position.dtype)
        return _pulses(offset, harmonics).flatten(1)


def _pulses(offset: Tensor, harmonics: Tensor) -> Tensor:
    """Sum of the harmonics at a phase in [-0.5, 0.5], of unit power; the last one has the fraction as its amplitude."""
    full = harmonics.floor() - 1
    last = harmonics - harmonics.floor()
    numerator, denominator = ((2 * full + 1) * math.pi * offset).sin(), (math.pi * offset).sin()
    center = denominator.abs() < 1e-5
    kernel = torch.where(center, 2 * full + 1, numerator / torch.where(center, 1, denominator))
    pulses = (kernel - 1) / 2 + last * (2 * math.pi * (full + 1) * offset).cos()
    return pulses * (2 / (full + last.square())).sqrt()


def _mean_growth(x: Tensor) -> Tensor:
    """Mean of exp(x t) over t from 0 to 1."""
    small = x.abs() < 1e-5
    return torch.where(small, 1 + x / 2, torch.expm1(x) / torch.where(small, 1, x))


def white_noise(index: Tensor, dtype: torch.dtype) -> Tensor:
    """White noise of unit power and uniform distribution, a fixed function of the position.

    The same on every device, alone, in a batch and streamed. Positions are hashed by the function of 32 bits and three
    rounds that Chris Wellons found by search ("Prospecting for Hash Functions", 2018).

    Args:
        index: positions, int64, of any shape; they repeat after 2^32.
        dtype: floating-point type of the result.
    """
    x = index & _MASK
    for shift, factor in _ROUNDS:
        x = ((x ^ (x >> shift)) * (factor - (1 << 32))) & _MASK  # with negative factors, products fit 64 bits
    x = x ^ (x >> 14)
    return ((x.to(dtype) + 0.5) / 2**31 - 1) * math.sqrt(3)
