"""Decoders that denoise: what a sampler drives, and how its result becomes audio."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import PartitaError
from .ranges import Positive, Ranged
from .roles import AudioTransform, Decoder, Sampler
from .streams import FrameAligner, Stream, TiledStream


@dataclass(frozen=True)
class NoiseSchedule(Ranged):
    """Noise levels by time in [0, 1], evenly spaced in `sigma ** (1 / rho)` (Karras et al., arXiv 2206.00364, eq. 5).

    Attributes:
        sigma_min: at time 0, where a denoiser returns its input.
        sigma_max: at time 1, where nothing is left of the signal.
        rho: the larger, the more of the times lie at small levels.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 7.0

    def __post_init__(self) -> None:
        """Refuse levels out of order."""
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise PartitaError(f"sigma_min is {self.sigma_min}; it must be below sigma_max, {self.sigma_max}")

    def sigma(self, time: Any) -> Any:
        """The level at a time, a float or a tensor."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + time * (high - low)) ** self.rho

    def time(self, sigma: Any) -> Any:
        """The time of a level, a float or a tensor."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - low) / (high - low)


class DenoisingDecoder(Decoder, ABC):
    """A decoder that turns noise into a representation of audio, chunk by chunk, conditioned on latents.

    Attributes:
        window: chunks that one denoising step sees at most.
        frames_per_chunk: latent frames in a chunk.
        schedule: the noise levels that it was made for.
        representation: the transform it works in; `hop * frames_per_chunk` is a multiple of its hop.
        sampler: how it is run unless another is named.
        loss_weights: of its own `losses`, by their names.
    """

    window: int
    frames_per_chunk: int
    schedule: NoiseSchedule
    representation: AudioTransform
    sampler: Sampler
    loss_weights: Mapping[str, float] = {}

    @abstractmethod
    def condition(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        """Features of the n whole chunks in `(batch, in_dim, n * frames_per_chunk * K)`.

        Each is `(batch, n, ...)`, so that those of chunks i to j are `f[:, i:j]`. Chunks do not see each other.
        """

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """One denoising step: x `(batch, C, F, w * T)`, sigma `(batch, w)`, features of w chunks; w = 1 to window."""

    def losses(self, features: tuple[Tensor, ...], clean: Tensor) -> dict[str, Tensor]:
        """What it learns beside denoising, each `(batch, w)`, a figure a chunk, at least float32; nothing by default.

        Args:
            features: of w chunks, from `condition`.
            clean: the representation of the same chunks, `(batch, C, F, w * T)`.
        """
        return {}

    def deviation(self, features: tuple[Tensor, ...]) -> Tensor | None:
        """The standard deviation of every point of w chunks, `(batch, C, F, w * T)`, as far as features tell it.

        Training measures distances in it. None, the default, is for those that do not know.
        """
        return None

    def generate(
        self, hidden: Tensor, layout: Tensor, *, sampler: Sampler | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Audio `(batch, channels, hop * frames)`: the stream, pushed once."""
        stream = self.stream(layout, sampler=sampler, seeds=seeds, dtype=hidden.dtype)
        return stream.push(hidden, last=True)

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Sampler | None = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """A stream from latents to audio; chunks are generated one after the other whatever the `width`."""
        seeds = torch.zeros(len(layout), dtype=torch.int64) if seeds is None else seeds
        return _DenoisingStream(self, layout, self.sampler if sampler is None else sampler, seeds)


class _DenoisingStream:
    """Whole chunks -> features -> the sampler's stream -> inverse transform, and the true length at the end."""

    def __init__(self, decoder: DenoisingDecoder, layout: Tensor, sampler: Sampler, seeds: Tensor) -> None:
        transform = decoder.representation
        chunk_samples = decoder.hop * decoder.frames_per_chunk
        if chunk_samples % transform.hop:
            raise PartitaError(f"a chunk of {chunk_samples} samples is no multiple of the transform's {transform.hop}")
        if not hasattr(sampler, "start"):
            raise PartitaError(f"{sampler!r} is no sampler")
        self._decoder, self._layout = decoder, layout
        unit = decoder.frames_per_chunk * decoder.tokens_per_frame
        self._chunks = FrameAligner(unit, samples=decoder.hop // decoder.tokens_per_frame)
        self._sampling: Any = sampler.start(decoder, seeds)
        self._inverse = TiledStream(
            transform.inverse,
            units_in=1,
            units_out=transform.hop,
            context=transform.context,
            hop=transform.hop,
            width=max(1, chunk_samples // transform.hop),
        )
        held = chunk_samples * (sampler.latency or 0)
        self.latency = self._chunks.latency + held + self._inverse.latency
        self._owed = 0  # samples that the latents pushed so far stand for, less those returned

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        decoder = self._decoder
        self._owed += x.shape[-1] // decoder.tokens_per_frame * decoder.hop
        # One chunk at a time: memory does not grow with the push, nor does rounding depend on how it was cut.
        chunks = self._chunks.push(x, last=last).split(self._chunks.unit, dim=-1)
        audio = [self._denoise(chunk, last=last and i == len(chunks) - 1) for i, chunk in enumerate(chunks)]
        whole = torch.cat(audio, dim=-1)[..., : self._owed]  # the last chunk may have been padded
        self._owed -= whole.shape[-1]
        return whole

    def _denoise(self, chunk: Tensor, *, last: bool) -> Tensor:
        """The audio that becomes final with one more chunk, or with none."""
        count = chunk.shape[-1] // self._chunks.unit
        # Networks refuse nothing, so the features of one chunk tell what none look like.
        chunk = F.pad(chunk, (0, self._chunks.unit * (1 - count)))
        features = self._decoder.condition(chunk, self._layout.to(chunk.device))
        features = tuple(f[:, :count] for f in features)
        return self._inverse.push(self._sampling.push(features, last=last), last=last)
