"""The Frechet distance of sets of clips, as a named embedder hears them."""

from collections.abc import Callable, Mapping

import torch
from partita_core import ChannelLayout, PartitaError
from torch import Tensor

from .results import FrechetDistances

Embed = Callable[[Tensor, int, ChannelLayout], Tensor]
"""Makes a vector `(dim,)` of a clip: its audio `(channels, samples)`, its sample rate, and its layout."""


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The squared Frechet distance of two sets of vectors `(vectors, dim)`, each taken as a Gaussian.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` (Dowson and Landau, 1982), in float64, with unbiased covariances. Few
    vectors make it too large.

    With `C = X^T X`, X the centered vectors by the root of their number less one, the last trace is the sum of the
    singular values of `X1 X2^T`: no root of a matrix is taken, and none has to be of full rank.

    Raises:
        PartitaError: a set has fewer than two, or they differ in dimension.
    """
    if min(len(first), len(second)) < 2:
        raise PartitaError(f"sets of {len(first)} and {len(second)} vectors have no covariances; give two of each")
    if first.shape[1] != second.shape[1]:
        raise PartitaError(f"vectors of {first.shape[1]} and {second.shape[1]} dimensions have no distance")
    first, second = (x.detach().to("cpu", torch.float64) for x in (first, second))
    x1, x2 = _scatter(first), _scatter(second)
    cross = torch.linalg.svdvals(x1 @ x2.T).sum()
    distance = (first.mean(0) - second.mean(0)).square().sum() + x1.square().sum() + x2.square().sum() - 2 * cross
    return float(distance.clamp_min(0))


def _scatter(vectors: Tensor) -> Tensor:
    """A matrix X with `X^T X` the covariance, of no more rows than columns."""
    centered = (vectors - vectors.mean(0)) / (len(vectors) - 1) ** 0.5
    return centered if len(centered) <= centered.shape[1] else torch.linalg.qr(centered, mode="r").R


class EmbeddedClips:
    """What an embedder makes of the originals and of each system's estimates, gathered clip by clip."""

    def __init__(self, embedder: str, embed: Embed) -> None:
        """Takes the embedder's name and the embedder."""
        self.embedder, self.embed = embedder, embed
        self.originals: list[Tensor] = []
        self.estimates: dict[str, list[Tensor]] = {}

    def add(
        self, name: str, audio: Tensor, estimates: Mapping[str, Tensor], *, sample_rate: int, layout: ChannelLayout
    ) -> None:
        """Adds a clip, `(channels, samples)`, and what each system made of it.

        Raises:
            PartitaError: what the embedder makes of one is not finite.
        """

        def embedded(what: str, audio: Tensor) -> Tensor:
            vector = self.embed(audio, sample_rate, layout)
            if not torch.isfinite(vector).all():
                raise PartitaError(f"{self.embedder} makes figures that are not finite of {what} of clip {name}")
            return vector

        self.originals.append(embedded("the original", audio))
        for system, estimate in estimates.items():
            self.estimates.setdefault(system, []).append(embedded(f"what {system} returned", estimate))

    def distances(self) -> FrechetDistances:
        """The distance of each system's clips from the originals.

        Raises:
            PartitaError: there are fewer than two clips.
        """
        originals = torch.stack(self.originals)
        found = {name: frechet_distance(torch.stack(vectors), originals) for name, vectors in self.estimates.items()}
        return FrechetDistances(self.embedder, originals.shape[1], len(originals), found)
