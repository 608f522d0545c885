"""Normalisation by statistics of the data, which evaluation and training share."""

import torch
from partita_core import upcast
from torch import Tensor, distributed, nn

_EPS = 1e-6  # added to variances: a number that never varies stays zero, and one that hardly does is raised


class RunningNorm(nn.Module):
    """Each number of an item to zero mean and unit variance over the data; no scale or shift is learned.

    What comes out is `(x - running_mean) / running_std`, in training too, so it depends on the item alone. Gradients
    are those of batch normalisation: the part that would move or scale a number in all items alike is taken out, and
    what is the same for all items cannot grow (batch renormalisation, Ioffe 2017, arXiv 1702.03275, without limits).
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
        """`(items, *shape)` to as much, at least float32; in training the statistics move."""
        x = upcast(x)
        if not self.training:
            return (x - self.running_mean.to(x.dtype)) * (self.running_variance.to(x.dtype) + _EPS).rsqrt()
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        self._update(x.detach())
        # Clones, since the buffers may move in place before this graph goes backward.
        running_mean, running_variance = (upcast(b).clone() for b in (self.running_mean, self.running_variance))
        std, running_std = (variance + _EPS).sqrt(), (running_variance + _EPS).sqrt()
        scale, shift = (std / running_std).detach(), ((mean - running_mean) / running_std).detach()
        return (x - mean) / std * scale + shift

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        """Moves the statistics towards those over the batches of all processes; the first ones are taken over."""
        sums = torch.cat([x.sum(0)[None], x.square().sum(0)[None], torch.full_like(x[:1], x.shape[0])])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        total, squares, count = sums.unbind()
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        self.steps += 1
        share = (1 / self.steps).clamp_min(1 - self.decay)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_variance.lerp_(variance.to(self.running_variance.dtype), share)
