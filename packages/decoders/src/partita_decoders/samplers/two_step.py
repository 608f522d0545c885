"""Two-step decoding (Music2Latent2): each chunk is denoised anew as the context of the next."""

from dataclasses import dataclass

from partita_core import Config, DenoisingDecoder, register
from partita_core.ranges import NonNegative
from torch import Tensor

from ._chunks import ChunkStream
from ._sequential import SequentialStream


@register("sampler/two_step")
@dataclass(frozen=True)
class TwoStep(Config):
    """Chunk by chunk beside the re-noised chunk before, whose second denoising is its final version.

    From Music2Latent2 (arXiv 2501.17578), the figure of inference. The chunk before has to go through the network as
    context anyway, so that n chunks of two steps each cost n + 1 calls of the decoder. Noise in the context also
    hides the errors of the past, which do not add up.

    Attributes:
        sigma_context: noise level of the context; 0 for a clean one, which comes back as it was.
        refine: return the second version of a chunk, one chunk later; else the first, at once, for n calls.
    """

    sigma_context: NonNegative = 0.965
    refine: bool = True

    def build(self) -> "TwoStep":
        """The sampler is its settings."""
        return self

    @classmethod
    def example(cls) -> "TwoStep":
        """The defaults."""
        return cls()

    @property
    def latency(self) -> int:
        """Chunks held back: one with `refine`, else none."""
        return int(self.refine)

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """A stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder sees one chunk at a time, or `sigma_context` is above its levels.
        """
        return SequentialStream(decoder, seeds, steps=1, sigma_context=self.sigma_context, refine=self.refine)
