"""Vectors to zero mean and unit covariance."""

import torch
from partita_core import is_distributed
from torch import Tensor, distributed, nn
from torch.nn import functional as F

# Of the mean variance: directions that have less hold rounding errors, and are not raised further.
_FLOOR = 1e-3
_EPS = 1e-8  # for silence


class Whitening(nn.Module):
    """Zero mean and unit covariance by the statistics of the first batches; what it has not seen any yet, unchanged.

    BEST-RQ (arXiv 2202.01855, section 3.1) normalizes what it quantizes: most codes would not come up else. Where
    channels say nearly the same, as those of a codec do that has been trained for a short while, each channel by itself
    is not enough. The map is the symmetric one (ZCA), which changes vectors as little as possible.
    """

    steps: Tensor
    moments: Tensor
    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, *, steps: int) -> None:
        """Looks at as many batches of vectors of `dim` numbers; for 0 `steps` at none."""
        super().__init__()
        self.limit = steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Sums of the products of all pairs of numbers, the last of which is one: so that their sums and count are here.
        self.register_buffer("moments", torch.zeros(dim + 1, dim + 1, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def update(self, vectors: Tensor, valid: Tensor) -> None:
        """Takes the `valid` `(...)` of vectors `(..., dim)` of all processes into account, unless it has had enough."""
        if self.steps >= self.limit:
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
        """`(..., dim)` to as much, in the dtype of the buffers; autocast does not touch it."""
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors.to(self.mean) - self.mean) @ self.matrix
