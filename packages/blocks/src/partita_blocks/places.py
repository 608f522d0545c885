"""One matrix from all places of a map to a few vectors, and one back: what attention does, before it has learned to."""

from torch import Tensor, nn


class Gather(nn.Module):
    """Every place of a map to every one of a few vectors, linearly.

    A weight for each pair of a place's channel and a vector's: what is said of different places stays apart, which
    sums weighted by attention have to learn. The map is narrowed first, which keeps the matrix small.
    """

    def __init__(self, dim: int, *, places: int, vectors: int, width: int) -> None:
        """Builds it.

        Args:
            dim: channels of the map and of the vectors.
            places: points of the map.
            vectors: how many there are to be.
            width: channels of a place that are passed on.
        """
        super().__init__()
        self.vectors = vectors
        self.narrow = nn.Linear(dim, width, bias=False)
        self.across = nn.Linear(places * width, vectors * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, places, dim)` to `(batch, vectors, dim)`."""
        return self.across(self.narrow(x).flatten(1)).unflatten(1, (self.vectors, -1))


class Spread(nn.Module):
    """A few vectors to every place of a map, linearly; see `Gather`."""

    def __init__(self, dim: int, *, vectors: int, vector_dim: int, places: int, width: int) -> None:
        """Builds it.

        Args:
            dim: channels of the map.
            vectors: how many there are.
            vector_dim: channels of a vector.
            places: points of the map.
            width: channels of a place that the vectors tell.
        """
        super().__init__()
        self.places = places
        self.across = nn.Linear(vectors * vector_dim, places * width, bias=False)
        self.widen = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, vectors, vector_dim)` to `(batch, places, dim)`."""
        return self.widen(self.across(x.flatten(1)).unflatten(1, (self.places, -1)))
