"""Whitening: vectors to zero mean and unit covariance."""

import torch
from partita_core import TypedModule, is_distributed
from torch import Tensor, distributed
from torch.nn import functional as F

# Floor of the variances, relative to their mean: directions below it hold rounding errors.
_FLOOR = 1e-3
_EPS = 1e-8  # keeps the floor above zero for silence


class Whitening(TypedModule):
    """Zero mean and unit covariance by the statistics of the first batches; the identity before any batch.

    BEST-RQ (arXiv 2202.01855, section 3.1) normalizes its inputs, since otherwise most codes would stay unused. Where
    channels are strongly correlated, as in codecs after short training, normalizing each channel separately is not
    enough. The map is symmetric (ZCA), which changes the vectors as little as possible.

    Args:
        dim: width of the vectors.
        steps: number of batches that statistics are collected from; 0 leaves vectors unchanged.
    """

    steps: Tensor
    moments: Tensor
    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, *, steps: int) -> None:
        super().__init__()
        self.max_steps = steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Sums of the products of all pairs of channels, with a constant one appended as the last channel, so that the
        # sums and the count of the vectors are in there, too.
        self.register_buffer("moments", torch.zeros(dim + 1, dim + 1, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def update(self, vectors: Tensor, valid: Tensor) -> None:
        """Add the vectors of all processes to the statistics, during the first `steps` batches.

        Args:
            vectors: `(..., dim)`.
            valid: mask `(...)` of the vectors that count.
        """
        if self.steps >= self.max_steps:
            return
        extended = F.pad(vectors[valid].to(self.moments), (0, 1), value=1)
        moments = extended.mT @ extended
        if is_distributed():
            distributed.all_reduce(moments)
        self.steps += 1
        self.moments += moments
        means = self.moments / self.moments[-1, -1].clamp(min=1)
        mean = means[-1, :-1]
        variances, directions = torch.linalg.eigh(means[:-1, :-1] - mean.outer(mean))
        variances = variances.clamp(min=0) + _FLOOR * variances.mean() + _EPS
        self.mean.copy_(mean)
        self.matrix.copy_((directions * variances.rsqrt()) @ directions.mT)

    def forward(self, vectors: Tensor) -> Tensor:
        """Whiten vectors `(..., dim)`, in the dtype of the buffers and unaffected by autocast."""
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors.to(self.mean) - self.mean) @ self.matrix
