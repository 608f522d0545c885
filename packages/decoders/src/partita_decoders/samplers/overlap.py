"""Decoding in overlapping pairs of chunks, so that each seam lies inside one call of the decoder (ours)."""

import math
from dataclasses import dataclass

import torch
from partita_core import DenoisingDecoder, register
from partita_core.ranges import Positive
from torch import Tensor

from .chunks import ChunkStream, Features, SamplerSettings


@register("sampler/overlap")
@dataclass(frozen=True)
class Overlap(SamplerSettings):
    """Sampler that denoises overlapping pairs of chunks a second time and cross-fades both versions of each chunk.

    Ours, not published. Two-step decoding joins versions from different calls: the final version of a chunk is the
    left half of a call that does not include the chunk before. Here each chunk t takes two steps:

    1. Denoise it from pure noise, together with the chunk before, which is re-noised to `sigma`. Re-noise the result
       to `sigma`.
    2. Denoise the pair (t - 1, t) at `sigma`.

    Chunk t thus has two second versions, the right half of pair (t - 1, t) and the left half of pair (t, t + 1). Both
    sides of each seam come from the same call. Within a chunk, a raised cosine fades from the first version to the
    second; since both are denoised from the same noisy chunk and features, they hardly differ in phase.

    n chunks take 2 n - 1 calls of the decoder (2 for one chunk), and one chunk is held back.

    Attributes:
        sigma: noise level of the pairs; higher levels keep less of the first version.
    """

    sigma: Positive = 0.965

    @property
    def latency(self) -> int:
        """Number of chunks held back: one, until it has been the left half of a pair."""
        return 1

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder's window is one chunk, or `sigma` exceeds its `sigma_max`.
        """
        return _OverlapStream(decoder, seeds, self)


class _OverlapStream(ChunkStream):
    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, settings: Overlap) -> None:
        super().__init__(decoder, seeds, window=2)
        self.sigma = self.context_level("sigma", settings.sigma)
        # The chunk before, re-noised; its features; and its version as right half, or None for the first chunk.
        self._before: tuple[Tensor, Features, Tensor | None] | None = None

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        highest = self.schedule.sigma_max
        x = self.noisy(None, highest, chunk, "step 0")
        if self._before is None:
            (first,) = self.denoise([x], [highest], [features])
            self._before = self.noisy(first, self.sigma, chunk, "context"), features, None
            return []
        context, context_features, as_right = self._before
        _, first = self.denoise([context, x], [self.sigma, highest], [context_features, features])
        again = self.noisy(first, self.sigma, chunk, "context")
        as_left, right = self.denoise([context, again], [self.sigma, self.sigma], [context_features, features])
        self._before = again, features, right
        return [as_left if as_right is None else torch.lerp(as_right, as_left, _rise(as_left))]

    def finish(self) -> list[Tensor]:
        if self._before is None:
            return []
        context, features, as_right = self._before
        return [self.denoise([context], [self.sigma], [features])[0] if as_right is None else as_right]


def _rise(like: Tensor) -> Tensor:
    """Raised cosine from 0 to 1 over the frames of a chunk."""
    frames = like.shape[-1]
    middle = torch.arange(frames, dtype=torch.float64) + 0.5
    return torch.sin(math.pi / 2 * middle / frames).square().to(like)
