"""Base classes of the samplers: settings, and a stream from features to denoised chunks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from partita_core import Config, DenoisingDecoder, NoiseSchedule, PartitaError, keyed_noise, upcast
from torch import Tensor

Features = tuple[Tensor, ...]
"""Features of one chunk, each `(batch, 1, ...)`."""


class SamplerSettings(Config):
    """Base class of samplers, which are their own Configs."""

    def build(self) -> Self:
        """Return the sampler itself."""
        return self

    @classmethod
    def example(cls) -> Self:
        """Return the sampler with its default settings."""
        return cls()


def levels(schedule: NoiseSchedule, steps: int) -> list[float]:
    """Noise levels of `steps` denoising steps from pure noise on, at times 1, 1 - 1/steps, 1 - 2/steps, ..."""
    return [schedule.sigma_max, *(schedule.sigma(1 - step / steps) for step in range(1, steps))]


class ChunkStream(ABC):
    """Stream from the features of chunks to denoised chunks `(batch, C, F, frames)`, at least float32.

    The decoder is called with the same shapes and memory layouts however the features are split into pushes, and noise
    depends only on (seed of the item, chunk, step). The output is therefore the same bit for bit for any split.

    Args:
        decoder: denoising decoder.
        seeds: noise seed of each item, `(batch,)` int64.
        window: number of chunks per denoising step.

    Raises:
        PartitaError: the window exceeds that of the decoder.
    """

    def __init__(self, decoder: DenoisingDecoder, seeds: Tensor, *, window: int) -> None:
        if decoder.window < window:
            name, seen = type(decoder).__name__, decoder.window
            raise PartitaError(f"this sampler needs a window of {window} chunks, {name} has {seen}; use independent")
        self.decoder, self.seeds, self.schedule = decoder, seeds, decoder.schedule
        self._count = 0
        self._silence: Tensor | None = None  # a chunk of zeros, for shape, dtype and device

    @abstractmethod
    def take(self, chunk: int, features: Features) -> list[Tensor]:
        """Process the features of chunk number `chunk`, the next one; return the chunks that are now final."""

    def finish(self) -> list[Tensor]:
        """Return the chunks held back, after the last one."""
        return []

    def push(self, features: Features, *, last: bool = False) -> Tensor:
        """Process features of n chunks, each `(batch, n, ...)`; return the frames of the chunks that are now final."""
        if self._silence is None:
            self._silence = self._silent(features[0])
        final = [self._silence[..., :0]]
        for i in range(features[0].shape[1]):
            # Copied, since rounding may depend on strides and alignment, and a view would keep all features alive.
            own = tuple(f[:, i : i + 1].clone(memory_format=torch.contiguous_format) for f in features)
            final += self.take(self._count, own)
            self._count += 1
        final += self.finish() if last else []
        return torch.cat(final, dim=-1)

    def noisy(self, clean: Tensor | None, sigma: float, chunk: int, step: str) -> Tensor:
        """Re-noise `clean` to level `sigma`, as `clean + sqrt(sigma ** 2 - sigma_min ** 2) * noise`; None for noise."""
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
        """Denoise neighboring chunks in one call of the decoder, each with its noise level and features."""
        x = torch.cat(list(chunks), dim=-1)
        sigma = torch.tensor(sigmas, dtype=x.dtype, device=x.device).repeat(len(x), 1)
        joined = tuple(torch.cat(parts, dim=1) for parts in zip(*features))
        return self.decoder(x.to(joined[0].dtype), sigma, joined).to(x.dtype).chunk(len(chunks), dim=-1)

    def context_level(self, name: str, sigma: float) -> float:
        """Raise a noise level to at least `sigma_min`, which is clean; `name` is that of the setting.

        Raises:
            PartitaError: the level exceeds `sigma_max` of the decoder.
        """
        if sigma > self.schedule.sigma_max:
            raise PartitaError(
                f"{name} is {sigma}; it must be at most {self.schedule.sigma_max}, the decoder's sigma_max"
            )
        return max(sigma, self.schedule.sigma_min)

    def _silent(self, like: Tensor) -> Tensor:
        decoder = self.decoder
        samples = decoder.hop * decoder.frames_per_chunk
        audio = upcast(like.new_zeros(1, decoder.audio_spec.channels, samples))
        shape = decoder.representation(audio).shape  # only the transform determines its bins and frames
        return audio.new_zeros(1).expand(len(self.seeds), *shape[1:])
