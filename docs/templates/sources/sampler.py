"""A sampler with one denoising step per chunk, given the chunk before it."""

from dataclasses import dataclass

from partita_core import DenoisingDecoder, register
from partita_core.ranges import NonNegative
from partita_decoders.samplers.chunks import ChunkStream, Features, SamplerSettings
from torch import Tensor


@register("sampler/newcomer")
@dataclass(frozen=True)
class Newcomer(SamplerSettings):
    """Sampler that denoises each chunk in one step, together with the re-noised chunk before it.

    n chunks take n calls of the decoder.

    Attributes:
        context_sigma: noise level to which the chunk before is raised.
    """

    context_sigma: NonNegative = 0.5

    @property
    def latency(self) -> int:
        """Number of chunks held back: none."""
        return 0

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`."""
        return _NewcomerStream(decoder, seeds, self)


class _NewcomerStream(ChunkStream):
    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, sampler: Newcomer) -> None:
        super().__init__(decoder, seeds, window=2)
        self.sigma = self.context_level("context_sigma", sampler.context_sigma)
        self._before: tuple[Tensor, Features] | None = None  # the chunk before, re-noised, and its features

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        """Denoise the next chunk; see `ChunkStream`."""
        top = self.schedule.sigma_max
        x = self.noisy(None, top, chunk, "start")
        if self._before is None:
            (clean,) = self.denoise([x], [top], [features])
        else:
            context, context_features = self._before
            _, clean = self.denoise([context, x], [self.sigma, top], [context_features, features])
        self._before = self.noisy(clean, self.sigma, chunk, "context"), features
        return [clean]
