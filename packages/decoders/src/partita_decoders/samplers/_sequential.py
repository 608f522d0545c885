"""One chunk after the other: independent, autoregressive and two-step decoding are settings of one loop."""

from partita_core import DenoisingDecoder
from torch import Tensor

from ._chunks import ChunkStream, Features, levels


class SequentialStream(ChunkStream):
    """Each chunk is denoised from pure noise, beside the one before it, which is re-noised once."""

    def __init__(
        self, decoder: DenoisingDecoder, seeds: Tensor, *, steps: int, sigma_context: float | None, refine: bool
    ) -> None:
        """Starts a stream.

        Args:
            decoder: what denoises.
            seeds: `(batch,)` int64.
            steps: denoising steps a chunk.
            sigma_context: level of the chunk before; None to leave it out.
            refine: return a chunk as it comes back as context of the next, instead of at once; of one step only.
        """
        super().__init__(decoder, seeds, window=1 if sigma_context is None else 2)
        self.levels, self.refine = levels(self.schedule, steps), refine
        self.sigma_context = None if sigma_context is None else self.context_level("sigma_context", sigma_context)
        self._before: tuple[Tensor, Features] | None = None  # the chunk before, re-noised, and its features

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        """See `ChunkStream`."""
        clean, refined = None, []
        for step, sigma in enumerate(self.levels):
            x = self.noisy(clean, sigma, chunk, f"step {step}")
            if self._before is None or self.sigma_context is None:
                (clean,) = self.denoise([x], [sigma], [features])
            else:
                context, theirs = self._before
                before, clean = self.denoise([context, x], [self.sigma_context, sigma], [theirs, features])
                refined = [before]
        assert clean is not None
        if self.sigma_context is not None:
            self._before = self.noisy(clean, self.sigma_context, chunk, "context"), features
        return refined if self.refine else [clean]

    def finish(self) -> list[Tensor]:
        """See `ChunkStream`."""
        if not self.refine or self._before is None or self.sigma_context is None:
            return []
        context, features = self._before
        return list(self.denoise([context], [self.sigma_context], [features]))
