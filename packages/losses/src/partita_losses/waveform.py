"""Distances of samples."""

import math
from collections.abc import Sequence

import torch
from partita_core import Loss, config_of, length_mask, register, upcast
from partita_core.ranges import Positive
from torch import Tensor

from .spectral import MIN_RMS, check_pair


@register("loss/waveform_l1")
class WaveformL1(Loss):
    """Mean absolute difference of samples."""

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32: the mean over channels and samples.

        Args:
            prediction: `(batch, channels, samples)`.
            target: same shape as `prediction`.
            lengths: `(batch,)` samples per item that are not padding; None for all.

        Raises:
            PartitaError: the shapes differ.
        """
        prediction, target, lengths = check_pair(prediction, target, lengths)
        return _mean((upcast(prediction) - upcast(target)).abs(), lengths)


@register("loss/relative_l1")
class RelativeL1(Loss):
    """Mean absolute difference of samples, relative to the mean absolute amplitude of the target.

    A prediction of silence has a distance of 1, whatever the level of the target, unless that is below `floor`.

    Args:
        floor: minimum of the denominator.
    """

    def __init__(self, *, floor: Positive = MIN_RMS) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32; see `WaveformL1.forward`."""
        prediction, target, lengths = check_pair(prediction, target, lengths)
        prediction, target = upcast(prediction), upcast(target)
        distance, level = (_mean(x.abs(), lengths) for x in (prediction - target, target))
        return distance / level.clamp_min(self.floor)


@register("loss/log_error")
class LogError(Loss):
    """Shortfall of the signal-to-distortion ratio from a limit, in nepers: each item counts by its ratio, not by level.

    With E the mean squared error and S the mean square of the target plus that of noise at an RMS of `floor`, the
    distance is `0.5 ln(1 + E / (r S))`, with `r = 10^(-limit_db / 10)`: minus the ratio `S / E` in nepers, up to the
    constant `limit_db / 8.686`, and zero at equality. The gradient is that of the logarithmic error `0.5 ln(E + r S)`:
    halving the error is worth as much at 20 dB as at 0 dB, and nothing above `limit_db`.

    Args:
        limit_db: signal-to-distortion ratio in dB above which the distance hardly decreases.
        floor: RMS that is added to the target's.
    """

    def __init__(self, *, limit_db: Positive = 60.0, floor: Positive = MIN_RMS) -> None:
        super().__init__()
        self.limit, self.floor = math.pow(10, -limit_db / 10), floor

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32; see `WaveformL1.forward`."""
        prediction, target, lengths = check_pair(prediction, target, lengths)
        prediction, target = upcast(prediction), upcast(target)
        error, level = (_mean(x.square(), lengths) for x in (prediction - target, target))
        return 0.5 * (error / (self.limit * (level + self.floor**2))).log1p()


WaveformL1Config = config_of(WaveformL1)
RelativeL1Config = config_of(RelativeL1)
LogErrorConfig = config_of(LogError)


def _mean(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of `(batch, channels, samples)` over channels and the first `lengths` samples, `(batch,)`."""
    values = values.mean(1)
    if lengths is None:
        return values.mean(1)
    lengths = lengths.to(values.device)
    return torch.where(length_mask(lengths, values.shape[1]), values, 0).sum(1) / lengths.clamp_min(1)
