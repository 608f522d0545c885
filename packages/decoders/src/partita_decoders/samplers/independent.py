"""Independent decoding: each chunk without context."""

from dataclasses import dataclass

from partita_core import DenoisingDecoder, register
from partita_core.ranges import Count
from torch import Tensor

from ._sequential import SequentialStream
from .chunks import ChunkStream, SamplerSettings


@register("sampler/independent")
@dataclass(frozen=True)
class Independent(SamplerSettings):
    """Sampler that denoises each chunk without context, as a baseline for the other samplers.

    n chunks take n * steps calls of the decoder, with one chunk of each item per call.

    Attributes:
        steps: denoising steps per chunk, at times 1, 1 - 1/steps, ...
    """

    steps: Count = 1

    @property
    def latency(self) -> int:
        """Number of chunks held back: none."""
        return 0

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`."""
        return SequentialStream(decoder, seeds, steps=self.steps, sigma_context=None, refine=False)
