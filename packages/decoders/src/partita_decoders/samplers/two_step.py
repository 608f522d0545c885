"""Two-step decoding (Music2Latent2): each chunk is denoised a second time as the context of the next."""

from dataclasses import dataclass

from partita_core import DenoisingDecoder, register
from partita_core.ranges import NonNegative
from torch import Tensor

from ._sequential import SequentialStream
from .chunks import ChunkStream, SamplerSettings


@register("sampler/two_step")
@dataclass(frozen=True)
class TwoStep(SamplerSettings):
    """Sampler that denoises each chunk together with the re-noised chunk before it, which is refined in the same call.

    From Music2Latent2 (arXiv 2501.17578, diagram of inference). Since the context passes through the network anyway,
    two steps per chunk take only n + 1 calls of the decoder for n chunks. Noise in the context also masks earlier
    errors, so that they do not accumulate.

    Attributes:
        sigma_context: noise level of the context; 0 for no noise, which returns the context unchanged.
        refine: return the second version of each chunk, one chunk later; otherwise the first, with n calls.
    """

    sigma_context: NonNegative = 0.965
    refine: bool = True

    @property
    def latency(self) -> int:
        """Number of chunks held back: one with `refine`, otherwise none."""
        return int(self.refine)

    def start(self, decoder: DenoisingDecoder, seeds: Tensor) -> ChunkStream:
        """Start a stream from features to chunks; see `partita_core.Sampler`.

        Raises:
            PartitaError: the decoder's window is one chunk, or `sigma_context` exceeds its `sigma_max`.
        """
        return SequentialStream(decoder, seeds, steps=1, sigma_context=self.sigma_context, refine=self.refine)
