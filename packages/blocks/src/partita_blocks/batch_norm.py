"""Batch normalization without anything learned, for latents that are to differ from recording to recording."""

import torch
from partita_core import is_distributed, upcast, update_average
from torch import Tensor, nn
from torch.distributed.nn import functional

_EPS = 1e-6  # added to variances: a number that never varies stays zero, and one that hardly does is raised


class BatchNorm(nn.Module):
    """Each number of an item to zero mean and unit variance: over the batch in training, over the data afterwards.

    What is the same for all items of a batch is taken out, of the values and of their gradients, so that it cannot
    grow (Ioffe and Szegedy, arXiv 1502.03167). Unlike torch's, the batch is that of all processes, and the running
    statistics begin as those of the first.
    """

    running_mean: Tensor
    running_variance: Tensor
    steps: Tensor

    def __init__(self, shape: tuple[int, ...], *, decay: float) -> None:
        """Keeps running statistics of items of `shape`, which keep `decay` of themselves in a training step."""
        super().__init__()
        self.decay = decay
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_variance", torch.ones(shape))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Normalize `(items, *shape)`, to at least float32; in training the running statistics move.

        Args:
            x: the items.
            counted: mask `(items,)` of those that the statistics are of, as those that hold audio; None, or where it
                holds for none: all.
        """
        x = upcast(x)
        if not self.training:
            return (x - self.running_mean.to(x.dtype)) * (self.running_variance.to(x.dtype) + _EPS).rsqrt()
        weight = x.new_ones(len(x)) if counted is None else (counted | ~counted.any()).to(x)
        weight = weight.view(-1, *(1 for _ in x.shape[1:]))
        count = _over_processes(weight.sum())
        mean = _over_processes((x * weight).sum(0)) / count
        variance = _over_processes(((x - mean).square() * weight).sum(0)) / count
        self._update(mean.detach(), variance.detach())
        return (x - mean) * (variance + _EPS).rsqrt()

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards those of a step; the first ones are taken over."""
        self.steps += (mean + variance).isfinite().all()
        share = (1 / self.steps.clamp_min(1)).clamp_min(1 - self.decay)
        update_average(self.running_mean, mean, share)
        update_average(self.running_variance, variance, share)


def _over_processes(x: Tensor) -> Tensor:
    """The sum over processes; gradients come back from all of them."""
    return functional.all_reduce(x) if is_distributed() else x
