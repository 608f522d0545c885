"""Autoregressive decoding (CoDiCodec): several steps a chunk, beside the re-noised chunk before."""

from dataclasses import dataclass

from partita_core import Config, DenoisingDecoder, register
from partita_core.ranges import Count, NonNegative
from torch import Tensor

from ._chunks import ChunkStream
from ._sequential import SequentialStream


@register("sampler/autoregressive")
@dataclass(frozen=True)
class Autoregressive(Config):
    """Chunk by chunk, in several steps each, beside the chunk before, re-noised once; its second version is dropped.

    From CoDiCodec (Pasini, Lattner, Fazekas, ISMIR 2025). Between its steps, at times 1, 1 - 1/steps, ..., a chunk is
    re-noised to the next level. n chunks cost n * steps calls of the decoder; one step is plain autoregressive
    decoding, which is `TwoStep(refine=False)`.

    Attributes:
        steps: denoising steps a chunk.
        sigma_context: noise level of the context; 0 for a clean one.
    """

    steps: Count = 2
    sigma_context: NonNegative = 0.965

    def build(self) -> "Autoregressive":
        """The sampler is its settings."""
        return self

    @classmethod
    def example(cls) -> "Autoregressive":
        """The defaults."""
        return cls()

    @property
    def latency(self) -> int:
        """No chunk is held back."""
        return 0

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """A stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder sees one chunk at a time, or `sigma_context` is above its levels.
        """
        return SequentialStream(decoder, seeds, steps=self.steps, sigma_context=self.sigma_context, refine=False)
