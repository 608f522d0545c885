"""Waveform L1 loss."""

from collections.abc import Sequence

import torch
from partita_core import Loss, config_of, length_mask, register, upcast
from torch import Tensor

from .spectral import check_pair


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
        distance = (upcast(prediction) - upcast(target)).abs().mean(1)
        if lengths is None:
            return distance.mean(1)
        lengths = lengths.to(distance.device)
        counted = length_mask(lengths, distance.shape[1])
        return torch.where(counted, distance, 0).sum(1) / lengths.clamp_min(1)


WaveformL1Config = config_of(WaveformL1)
