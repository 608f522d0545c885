"""Sequential decoding, one chunk at a time: the loop of independent, autoregressive and two-step decoding."""

from partita_core import DenoisingDecoder
from torch import Tensor

from .chunks import ChunkStream, Features, levels


class SequentialStream(ChunkStream):
    """Stream that denoises each chunk from pure noise, together with the re-noised chunk before it.

    Args:
        decoder: denoising decoder.
        seeds: noise seed of each item, `(batch,)` int64.
        steps: denoising steps per chunk.
        sigma_context: noise level of the chunk before; None to leave it out.
        refine: return the version of each chunk that was denoised as context of the next; for one step only.
        new_noise: draw new noise for each step; otherwise the noise that a step removed is scaled to the next level.
    """

    def __init__(
        self,
        decoder: DenoisingDecoder,
        seeds: Tensor,
        *,
        steps: int,
        sigma_context: float | None,
        refine: bool,
        new_noise: bool = True,
    ) -> None:
        super().__init__(decoder, seeds, window=1 if sigma_context is None else 2)
        self.levels, self.refine, self.new_noise = levels(self.schedule, steps), refine, new_noise
        self.sigma_context = None if sigma_context is None else self.context_level("sigma_context", sigma_context)
        self._before: tuple[Tensor, Features] | None = None  # the chunk before, re-noised, and its features

    def take(self, chunk: int, features: Features) -> list[Tensor]:
        """Denoise the next chunk; see `ChunkStream`."""
        x = clean = None
        refined = []
        for step, sigma in enumerate(self.levels):
            if x is None or clean is None or self.new_noise:
                x = self.noisy(clean, sigma, chunk, f"step {step}")
            else:
                x = clean + sigma / self.levels[step - 1] * (x - clean)
            if self._before is None or self.sigma_context is None:
                (clean,) = self.denoise([x], [sigma], [features])
            else:
                context, context_features = self._before
                before, clean = self.denoise([context, x], [self.sigma_context, sigma], [context_features, features])
                refined = [before]
        assert clean is not None
        if self.sigma_context is not None:
            self._before = self.noisy(clean, self.sigma_context, chunk, "context"), features
        return refined if self.refine else [clean]

    def finish(self) -> list[Tensor]:
        """Denoise the last chunk a second time, if the others were; see `ChunkStream`."""
        if not self.refine or self._before is None or self.sigma_context is None:
            return []
        context, features = self._before
        return list(self.denoise([context], [self.sigma_context], [features]))
