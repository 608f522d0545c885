"""Batch normalization without learned parameters, for latents that should differ between recordings."""

import torch
from partita_core import TypedModule, is_distributed, upcast, update_average
from torch import Tensor
from torch.distributed.nn import functional

_EPS = 1e-6  # added to variances: a constant value stays zero, and one that hardly varies is amplified


class BatchNorm(TypedModule):
    """Zero mean and unit variance of every value of an item, over the batch in training and over the data in eval mode.

    Components shared by all items of a batch are removed from the values and their gradients, so that they cannot grow
    (Ioffe and Szegedy, arXiv 1502.03167). Unlike in `torch.nn.BatchNorm1d`, the batch spans all processes, items have
    any shape, and the running statistics start from those of the first batch.

    Args:
        shape: shape of an item.
        decay: fraction of the running statistics that is kept per training step.

    Example:
        >>> norm = BatchNorm((64, 8), decay=0.99)
        >>> norm(torch.randn(16, 64, 8)).shape
        torch.Size([16, 64, 8])
    """

    running_mean: Tensor
    running_variance: Tensor
    steps: Tensor

    def __init__(self, shape: tuple[int, ...], *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_variance", torch.ones(shape))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Normalize items `(items, *shape)`, in at least float32, and update the running statistics in training.

        Args:
            x: the items.
            counted: mask `(items,)` of the items that enter the statistics, such as those with audio; None, or a mask
                without any, for all.
        """
        x = upcast(x)
        if not self.training:
            return (x - self.running_mean.to(x.dtype)) * (self.running_variance.to(x.dtype) + _EPS).rsqrt()
        weight = x.new_ones(len(x)) if counted is None else (counted | ~counted.any()).to(x)
        weight = weight.view(-1, *(1 for _ in x.shape[1:]))
        count = _sum_over_processes(weight.sum())
        mean = _sum_over_processes((x * weight).sum(0)) / count
        variance = _sum_over_processes(((x - mean).square() * weight).sum(0)) / count
        self._update(mean.detach(), variance.detach())
        return (x - mean) * (variance + _EPS).rsqrt()

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch; the first batch replaces them."""
        self.steps += (mean + variance).isfinite().all()
        share = (1 / self.steps.clamp_min(1)).clamp_min(1 - self.decay)
        update_average(self.running_mean, mean, share)
        update_average(self.running_variance, variance, share)


def _sum_over_processes(x: Tensor) -> Tensor:
    """Sum over processes, through which gradients flow back to all of them."""
    return functional.all_reduce(x) if is_distributed() else x
