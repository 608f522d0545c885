"""Batch normalisation without anything learned, for latents that are to differ from recording to recording."""

import torch
from partita_core import is_distributed, move_average, upcast
from torch import Tensor, distributed, nn
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

    def forward(self, x: Tensor) -> Tensor:
        """`(items, *shape)` to as much, at least float32; in training the running statistics move."""
        x = upcast(x)
        if not self.training:
            return (x - self.running_mean.to(x.dtype)) * (self.running_variance.to(x.dtype) + _EPS).rsqrt()
        self._update(x.detach())
        if is_distributed():
            mean = _over_processes(x.mean(0))
            variance = _over_processes((x - mean).square().mean(0))
        else:
            variance, mean = torch.var_mean(x, dim=0, correction=0)
        return (x - mean) * (variance + _EPS).rsqrt()

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        """Moves the statistics towards those over the batches of all processes; the first ones are taken over."""
        sums = torch.cat([x.sum(0)[None], x.square().sum(0)[None], torch.full_like(x[:1], x.shape[0])])
        if is_distributed():
            distributed.all_reduce(sums)
        total, squares, count = sums.unbind()
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self.steps += (mean + variance).isfinite().all()
        share = (1 / self.steps.clamp_min(1)).clamp_min(1 - self.decay)
        move_average(self.running_mean, mean, share)
        move_average(self.running_variance, variance, share)


def _over_processes(x: Tensor) -> Tensor:
    """The mean over processes, whose batches are of one size; gradients come back from all of them."""
    return functional.all_reduce(x) / distributed.get_world_size()
