"""Frechet distance between a system's clips and the originals, in the space of a named embedder."""

from collections.abc import Callable, Mapping

import torch
from partita_core import ChannelLayout, PartitaError
from torch import Tensor

from .results import FrechetDistances

Embed = Callable[[Tensor, int, ChannelLayout], Tensor]
"""An embedder: maps a clip's audio `(channels, samples)`, sample rate and layout to a vector `(dim,)`."""


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of two sets of vectors `(vectors, dim)`, each modeled as a Gaussian.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` (Dowson and Landau, 1982), in float64, with unbiased covariances. The
    value is biased upwards for few vectors.

    With `C = X^T X`, where X are the centered vectors over the root of their number less one, the last trace is the sum
    of the singular values of `X1 X2^T`: no matrix square root is needed, and no covariance has to be of full rank.

    Raises:
        PartitaError: a set has fewer than two vectors, or the dimensions differ.
    """
    if min(len(first), len(second)) < 2:
        raise PartitaError(f"the sets have {len(first)} and {len(second)} vectors; a covariance needs at least 2")
    if first.shape[1] != second.shape[1]:
        raise PartitaError(f"the vectors have {first.shape[1]} and {second.shape[1]} dimensions; they must be equal")
    first, second = (x.detach().to("cpu", torch.float64) for x in (first, second))
    x1, x2 = _scatter(first), _scatter(second)
    cross = torch.linalg.svdvals(x1 @ x2.T).sum()
    distance = (first.mean(0) - second.mean(0)).square().sum() + x1.square().sum() + x2.square().sum() - 2 * cross
    return float(distance.clamp_min(0))


def _scatter(vectors: Tensor) -> Tensor:
    """A matrix X with covariance `X^T X` and no more rows than columns."""
    centered = (vectors - vectors.mean(0)) / (len(vectors) - 1) ** 0.5
    return centered if len(centered) <= centered.shape[1] else torch.linalg.qr(centered, mode="r").R


class EmbeddedClips:
    """Embeddings of the originals and of each system's estimates, collected clip by clip.

    Args:
        embedder: name of the embedder.
        embed: the embedder.
    """

    def __init__(self, embedder: str, embed: Embed) -> None:
        self.embedder, self.embed = embedder, embed
        self.originals: list[Tensor] = []
        self.estimates: dict[str, list[Tensor]] = {}

    def add(
        self, name: str, audio: Tensor, estimates: Mapping[str, Tensor], *, sample_rate: int, layout: ChannelLayout
    ) -> None:
        """Embed a clip `(channels, samples)` and each system's estimate of it.

        Raises:
            PartitaError: an embedding is not finite.
        """

        def embedded(what: str, audio: Tensor) -> Tensor:
            vector = self.embed(audio, sample_rate, layout)
            if not torch.isfinite(vector).all():
                raise PartitaError(f"{self.embedder} returned values that are not finite for {what} of clip {name}")
            return vector

        self.originals.append(embedded("the original", audio))
        for system, estimate in estimates.items():
            self.estimates.setdefault(system, []).append(embedded(f"the estimate by {system}", estimate))

    def distances(self) -> FrechetDistances:
        """Return the distance of each system's clips from the originals.

        Raises:
            PartitaError: there are fewer than two clips.
        """
        originals = torch.stack(self.originals)
        found = {name: frechet_distance(torch.stack(vectors), originals) for name, vectors in self.estimates.items()}
        return FrechetDistances(self.embedder, originals.shape[1], len(originals), found)
