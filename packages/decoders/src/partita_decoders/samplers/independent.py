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
        new_noise: draw new noise at each step, as is right for a consistency model. Otherwise the noise that the step
            before has removed is scaled to the next level, an Euler step of the probability flow of a denoiser (Karras
            et al., 2206.00364; DDIM).
    """

    steps: Count = 1
    new_noise: bool = True

    @property
    def latency(self) -> int:
        """Number of chunks held back: none."""
        return 0

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`."""
        return SequentialStream(
            decoder, seeds, steps=self.steps, sigma_context=None, refine=False, new_noise=self.new_noise
        )
