"""Autoregressive decoding (CoDiCodec): several steps per chunk, conditioned on the re-noised chunk before."""

from dataclasses import dataclass

from partita_core import DenoisingDecoder, register
from partita_core.ranges import Count, NonNegative
from torch import Tensor

from ._sequential import SequentialStream
from .chunks import ChunkStream, SamplerSettings


@register("sampler/autoregressive")
@dataclass(frozen=True)
class Autoregressive(SamplerSettings):
    """Sampler that denoises each chunk in several steps, together with the re-noised chunk before it.

    From CoDiCodec (Pasini, Lattner, Fazekas, ISMIR 2025). The steps are at times 1, 1 - 1/steps, ...; between them, the
    chunk is re-noised to the next level. The context is re-noised once, and its new version is dropped. n chunks take
    n * steps calls of the decoder. One step is the same as `TwoStep(refine=False)`.

    Attributes:
        steps: denoising steps per chunk.
        sigma_context: noise level of the context; 0 for no noise.
        new_noise: draw new noise at each step, as is right for a consistency model. Otherwise the noise that the step
            before has removed is scaled to the next level, an Euler step of the probability flow of a denoiser (Karras
            et al., 2206.00364; DDIM).
    """

    steps: Count = 2
    sigma_context: NonNegative = 0.965
    new_noise: bool = True

    @property
    def latency(self) -> int:
        """Number of chunks held back: none."""
        return 0

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder's window is one chunk, or `sigma_context` exceeds its `sigma_max`.
        """
        return SequentialStream(
            decoder,
            seeds,
            steps=self.steps,
            sigma_context=self.sigma_context,
            refine=False,
            new_noise=self.new_noise,
        )
