"""Vectors to zero mean and unit covariance."""

import torch
from partita_core import is_distributed
from torch import Tensor, distributed, nn

# Of the mean variance: directions that have less hold rounding errors, and are not raised further.
_FLOOR = 1e-3
_EPS = 1e-8  # for silence


class Whitening(nn.Module):
    """Zero mean and unit covariance by the statistics of the first batches; what it has not seen any yet, unchanged.

    BEST-RQ (arXiv 2202.01855, section 3.1) normalises what it quantizes: most codes would not come up else. Where
    channels say nearly the same, as those of a codec do that has been trained for a short while, each channel by itself
    is not enough. The map is the symmetric one (ZCA), which changes vectors as little as possible.
    """

    steps: Tensor
    count: Tensor
    total: Tensor
    products: Tensor
    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, *, steps: int) -> None:
        """Looks at as many batches of vectors of `dim` numbers; for 0 `steps` at none."""
        super().__init__()
        self.limit = steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("products", torch.zeros(dim, dim, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def update(self, vectors: Tensor) -> None:
        """Takes a batch `(count, dim)`, with those of all processes, into the statistics, unless it has had enough."""
        if self.steps >= self.limit:
            return
        vectors = vectors.to(self.total)
        dim = vectors.shape[-1]
        count = vectors.new_full((1, dim), len(vectors))
        sums = torch.cat([vectors.mT @ vectors, vectors.sum(0)[None], count])
        if is_distributed():
            distributed.all_reduce(sums)
        self.steps += 1
        self.products += sums[:dim]
        self.total += sums[dim]
        self.count += sums[dim + 1, 0]
        mean = self.total / self.count.clamp(min=1)
        variances, directions = torch.linalg.eigh(self.products / self.count.clamp(min=1) - mean.outer(mean))
        variances = variances.clamp(min=0) + _FLOOR * variances.mean() + _EPS
        self.mean.copy_(mean)
        self.matrix.copy_((directions * variances.rsqrt()) @ directions.mT)

    def forward(self, vectors: Tensor) -> Tensor:
        """`(..., dim)` to as much, in the dtype of the buffers; autocast does not touch it."""
        with torch.autocast(vectors.device.type, enabled=False):
            return (vectors.to(self.mean) - self.mean) @ self.matrix
