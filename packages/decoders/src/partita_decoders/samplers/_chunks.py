"""What the samplers share: noise by name, a denoising step over neighbors, and a stream that takes chunk by chunk."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from partita_core import DenoisingDecoder, NoiseSchedule, PartitaError, keyed_noise, upcast
from torch import Tensor

Features = tuple[Tensor, ...]
"""Of one chunk, each `(batch, 1, ...)`."""


def levels(schedule: NoiseSchedule, steps: int) -> list[float]:
    """The noise levels of `steps` denoising steps, from pure noise on: at times 1, 1 - 1/steps, 1 - 2/steps, ..."""
    return [schedule.sigma_max, *(schedule.sigma(1 - step / steps) for step in range(1, steps))]


class ChunkStream(ABC):
    """From the features of chunks to the chunks themselves, `(batch, C, F, frames)`, at least float32.

    The decoder is called with the same shapes, and copies of the same layout, however the chunks came in, and noise
    depends on (the item's seed, chunk, step) alone: so what comes out is the same, bit for bit, in any split.
    """

    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, *, window: int) -> None:
        """Starts a stream of as many items as there are `seeds`, of at most `window` chunks a step.

        Raises:
            PartitaError: the decoder does not see so many chunks at a time.
        """
        if decoder.window < window:
            name, seen = type(decoder).__name__, decoder.window
            raise PartitaError(f"this sampler needs a window of {window} chunks, {name} has {seen}; take independent")
        self.decoder, self.seeds, self.schedule = decoder, seeds, decoder.schedule
        self._count = 0
        self._silence: Tensor | None = None  # a chunk of zeros, for its shape, type and device

    @abstractmethod
    def take(self, chunk: int, features: Features) -> list[Tensor]:
        """Takes the next chunk, the `chunk`-th; returns the chunks that are final."""

    def finish(self) -> list[Tensor]:
        """Returns what is held back, once all chunks are there."""
        return []

    def push(self, features: Features, *, last: bool = False) -> Tensor:
        """Features of n chunks, each `(batch, n, ...)`, to the frames that are final."""
        if self._silence is None:
            self._silence = self._silent(features[0])
        final = [self._silence[..., :0]]
        for i in range(features[0].shape[1]):
            # A copy: rounding may depend on strides and alignment, and a view would keep the whole push in memory.
            own = tuple(f[:, i : i + 1].clone(memory_format=torch.contiguous_format) for f in features)
            final += self.take(self._count, own)
            self._count += 1
        final += self.finish() if last else []
        return torch.cat(final, dim=-1)

    def noisy(self, clean: Tensor | None, sigma: float, chunk: int, step: str) -> Tensor:
        """A chunk at level `sigma`: `clean + sqrt(sigma ** 2 - sigma_min ** 2) * noise`; without one, noise alone."""
        assert self._silence is not None
        low = 0.0 if clean is None else self.schedule.sigma_min
        scale = math.sqrt(max(0.0, sigma**2 - low**2))
        if clean is not None and not scale:
            return clean
        noise = scale * keyed_noise(self.seeds, chunk, step, shape=self._silence.shape[1:]).to(self._silence)
        return noise if clean is None else clean + noise

    def denoise(
        self, chunks: Sequence[Tensor], sigmas: Sequence[float], features: Sequence[Features]
    ) -> tuple[Tensor, ...]:
        """One call of the decoder over neighboring chunks, each with its noise level and features."""
        x = torch.cat(list(chunks), dim=-1)
        sigma = torch.tensor(sigmas, dtype=x.dtype, device=x.device).repeat(len(x), 1)
        joined = tuple(torch.cat(parts, dim=1) for parts in zip(*features))
        return self.decoder(x.to(joined[0].dtype), sigma, joined).to(x.dtype).chunk(len(chunks), dim=-1)

    def context_level(self, name: str, sigma: float) -> float:
        """The level that a setting means for this decoder: at least `sigma_min`, which is clean.

        Raises:
            PartitaError: it is above the decoder's levels.
        """
        if sigma > self.schedule.sigma_max:
            raise PartitaError(f"{name} is {sigma}, and the decoder's levels end at {self.schedule.sigma_max}")
        return max(sigma, self.schedule.sigma_min)

    def _silent(self, like: Tensor) -> Tensor:
        decoder = self.decoder
        samples = decoder.hop * decoder.frames_per_chunk
        audio = upcast(like.new_zeros(1, decoder.audio_spec.channels, samples))
        shape = decoder.representation(audio).shape  # a chunk's bins and frames are known to the transform alone
        return audio.new_zeros(1).expand(len(self.seeds), *shape[1:])
