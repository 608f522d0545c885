"""Position-dependent linear maps between a feature grid and a few vectors: a shortcut around attention.

Attention averages over positions until its heads have learned to distinguish them. One dense matrix keeps the content
of different positions separate from the first step on.
"""

from einops import rearrange
from partita_core import TypedModule
from torch import Tensor, nn


class GridToVectors(TypedModule):
    """Dense linear map from all positions of a grid to each of a few vectors.

    The channels of the grid are narrowed first, which keeps the matrix small.

    Args:
        dim: channels of the grid and of the vectors.
        positions: number of positions in the grid.
        vectors: number of vectors.
        width: channels per position that enter the dense matrix.

    Example:
        >>> GridToVectors(256, positions=128, vectors=8, width=16)(torch.randn(2, 128, 256)).shape
        torch.Size([2, 8, 256])
    """

    def __init__(self, dim: int, *, positions: int, vectors: int, width: int) -> None:
        super().__init__()
        self.vectors = vectors
        self.narrow = nn.Linear(dim, width, bias=False)
        self.across = nn.Linear(positions * width, vectors * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, positions, dim)` to `(batch, vectors, dim)`."""
        flat = rearrange(self.narrow(x), "b positions width -> b (positions width)")
        return rearrange(self.across(flat), "b (vectors d) -> b vectors d", vectors=self.vectors)


class VectorsToGrid(TypedModule):
    """Dense linear map from a few vectors to all positions of a grid, the counterpart of `GridToVectors`.

    Args:
        dim: channels of the grid.
        vectors: number of vectors.
        vector_dim: channels per vector.
        positions: number of positions in the grid.
        width: channels per position that leave the dense matrix.
    """

    def __init__(self, dim: int, *, vectors: int, vector_dim: int, positions: int, width: int) -> None:
        super().__init__()
        self.positions = positions
        self.across = nn.Linear(vectors * vector_dim, positions * width, bias=False)
        self.widen = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, vectors, vector_dim)` to `(batch, positions, dim)`."""
        flat = self.across(rearrange(x, "b vectors d -> b (vectors d)"))
        return self.widen(rearrange(flat, "b (positions width) -> b positions width", positions=self.positions))
