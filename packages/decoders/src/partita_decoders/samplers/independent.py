"""Independent decoding: every chunk alone."""

from dataclasses import dataclass

from partita_core import Config, DenoisingDecoder, register
from partita_core.ranges import Count
from torch import Tensor

from ._chunks import ChunkStream
from ._sequential import SequentialStream


@register("sampler/independent")
@dataclass(frozen=True)
class Independent(Config):
    """Every chunk alone, whatever the decoder's window: what the others' context is measured against.

    One chunk of each item a call, n * steps calls, so that memory does not depend on duration.

    Attributes:
        steps: denoising steps a chunk, at times 1, 1 - 1/steps, ...
    """

    steps: Count = 1

    def build(self) -> "Independent":
        """The sampler is its settings."""
        return self

    @classmethod
    def example(cls) -> "Independent":
        """The defaults."""
        return cls()

    @property
    def latency(self) -> int:
        """No chunk is held back."""
        return 0

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """A stream from features to chunks; see `partita_core.Sampler`."""
        return SequentialStream(decoder, seeds, steps=self.steps, sigma_context=None, refine=False)
