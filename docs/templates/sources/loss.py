"""The mean absolute difference of the slopes of two signals."""

from collections.abc import Sequence

import torch
from partita_core import Loss, config_of, length_mask, register, upcast
from partita_core.ranges import Proportion
from partita_losses.spectral import check_pair
from torch import Tensor
from torch.nn.functional import pad


@register("loss/newcomer", example={"emphasis": 0.5})
class Newcomer(Loss):
    """Mean absolute difference of samples after pre-emphasis, `x[t] - emphasis * x[t - 1]`.

    Args:
        emphasis: weight of the previous sample; 0 for none.
    """

    def __init__(self, *, emphasis: Proportion = 0.85) -> None:
        super().__init__()
        self.emphasis = emphasis

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
        error = upcast(prediction) - upcast(target)
        distance = (error - self.emphasis * pad(error, (1, 0))[..., :-1]).abs().mean(1)
        if lengths is None:
            return distance.mean(1)
        lengths = lengths.to(distance.device)
        counted = length_mask(lengths, distance.shape[1])
        return torch.where(counted, distance, 0).sum(1) / lengths.clamp_min(1)


NewcomerConfig = config_of(Newcomer)
