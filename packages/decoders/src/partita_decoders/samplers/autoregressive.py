"""Autoregressive decoding (CoDiCodec): several steps a chunk, beside the re-noised chunk before."""

from dataclasses import dataclass

from partita_core import Config, DenoisingDecoder, register
from torch import Tensor

from ._chunks import ChunkStream, check_count, check_level
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

    steps: int = 2
    sigma_context: float = 0.965

    def __post_init__(self) -> None:
        """Refuses no steps, and what is no noise level."""
        check_count("steps", self.steps)
        check_level("sigma_context", self.sigma_context)

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
