"""Overlapping pairs: every seam is made within one call of the decoder, and lies in its middle."""

import math
from dataclasses import dataclass

import torch
from partita_core import Config, DenoisingDecoder, register
from partita_core.ranges import Positive
from torch import Tensor

from ._chunks import ChunkStream, Features


@register("sampler/overlap")
@dataclass(frozen=True)
class Overlap(Config):
    """Re-denoises every pair of neighbors together and cross-fades the two versions of each chunk.

    Two-step decoding joins versions that do not know each other: the final version of a chunk is the left half of its
    own call, made without the chunk before. The grid cannot be moved either, since features belong to whole chunks.
    But pairs can overlap: (0, 1), (1, 2), (2, 3), ... For each chunk t there are two steps:

    1. from pure noise, beside the chunk before, re-noised to `sigma`, to a first version; re-noise that to `sigma`;
    2. denoise the pair (t - 1, t) at `sigma`. It returns t - 1 as the left half, and t as the right half.

    So chunk t has two second versions, the right half of (t - 1, t) and the left half of (t, t + 1). Both sides of a
    seam are taken from the one call that made them together, where the right half sees what the left half is made of.
    In between, a raised cosine leads from one version to the other, where it can do no harm: both are denoised from
    the same noisy chunk and the same features, so that they differ by what the neighbor told, and not in phase.

    n chunks cost 2 n - 1 calls of the decoder (2 for one chunk), and one chunk is held back.

    Attributes:
        sigma: noise level of the pairs: the higher, the more of the first version is made anew.
    """

    sigma: Positive = 0.965

    def build(self) -> "Overlap":
        """The sampler is its settings."""
        return self

    @classmethod
    def example(cls) -> "Overlap":
        """The defaults."""
        return cls()

    @property
    def latency(self) -> int:
        """One chunk is held back, until it has been the left half of a pair."""
        return 1

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """A stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder sees one chunk at a time, or `sigma` is not within its levels.
        """
        return _OverlapStream(decoder, seeds, self)


class _OverlapStream(ChunkStream):
    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, settings: Overlap) -> None:
        super().__init__(decoder, seeds, window=2)
        self.sigma = self.context_level("sigma", settings.sigma)
        # The chunk before, re-noised; its features; and its version as the right half, which the first has not.
        self._before: tuple[Tensor, Features, Tensor | None] | None = None

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        highest = self.schedule.sigma_max
        x = self.noisy(None, highest, chunk, "step 0")
        if self._before is None:
            (first,) = self.denoise([x], [highest], [features])
            self._before = self.noisy(first, self.sigma, chunk, "context"), features, None
            return []
        context, theirs, as_right = self._before
        _, first = self.denoise([context, x], [self.sigma, highest], [theirs, features])
        again = self.noisy(first, self.sigma, chunk, "context")
        as_left, joined = self.denoise([context, again], [self.sigma, self.sigma], [theirs, features])
        self._before = again, features, joined
        return [as_left if as_right is None else torch.lerp(as_right, as_left, _rise(as_left))]

    def finish(self) -> list[Tensor]:
        if self._before is None:
            return []
        context, features, as_right = self._before
        return [self.denoise([context], [self.sigma], [features])[0] if as_right is None else as_right]


def _rise(like: Tensor) -> Tensor:
    """From 0 to 1 over the frames of a chunk, as a raised cosine."""
    frames = like.shape[-1]
    middle = torch.arange(frames, dtype=torch.float64) + 0.5
    return torch.sin(math.pi / 2 * middle / frames).square().to(like)
