"""Denoising decoders: the interface that samplers drive, and the stream that makes audio of their result."""

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
    """Noise level as a function of time in [0, 1], linear in `sigma ** (1 / rho)` (Karras et al., 2206.00364, eq. 5).

    Attributes:
        sigma_min: noise level at time 0, where a denoiser returns its input.
        sigma_max: noise level at time 1, where the signal is negligible.
        rho: warping exponent; larger values spend more of the time at low noise levels.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 7.0

    def __post_init__(self) -> None:
        """Check that the levels are in order."""
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise PartitaError(
                f"sigma_min is {self.sigma_min} and sigma_max is {self.sigma_max}; sigma_min must be smaller"
            )

    def sigma(self, time: Any) -> Any:
        """Noise level at a time, float or tensor."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + time * (high - low)) ** self.rho

    def time(self, sigma: Any) -> Any:
        """Time of a noise level, float or tensor."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - low) / (high - low)


class DenoisingDecoder(Decoder, ABC):
    """A decoder that denoises a representation of audio, chunk by chunk, conditioned on latents.

    Attributes:
        window: maximum number of chunks per denoising step.
        frames_per_chunk: latent frames per chunk.
        schedule: noise levels it is trained on.
        representation: transform of audio that it denoises; its hop divides `hop * frames_per_chunk`.
        sampler: default sampler.
        loss_weights: weight of each of its own `losses`, by name.
    """

    window: int
    frames_per_chunk: int
    schedule: NoiseSchedule
    representation: AudioTransform
    sampler: Sampler
    loss_weights: Mapping[str, float] = {}

    @abstractmethod
    def condition(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        """Compute features of the n chunks in `(batch, in_dim, n * frames_per_chunk * K)`.

        Each feature is `(batch, n, ...)`, so `f[:, i:j]` are those of chunks i to j. Chunks are independent.
        """

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """Denoise x `(batch, C, F, w * T)` at levels sigma `(batch, w)`, given features of w chunks, 1 to window."""

    def losses(self, features: tuple[Tensor, ...], clean: Tensor) -> dict[str, Tensor]:
        """Auxiliary losses by name, one value per chunk `(batch, w)`, at least float32; none by default.

        Args:
            features: features of w chunks, from `condition`.
            clean: representation of the same chunks, `(batch, C, F, w * T)`.
        """
        return {}

    def deviation(self, features: tuple[Tensor, ...]) -> Tensor | None:
        """Predicted standard deviation of each point of w chunks, `(batch, C, F, w * T)`; None by default.

        Training divides distances by it.
        """
        return None

    def generate(
        self, hidden: Tensor, layout: Tensor, *, sampler: Sampler | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Generate audio `(batch, channels, hop * frames)` by pushing the stream once."""
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
        """Stream from latents to audio; chunks are generated one at a time for any `width`."""
        seeds = torch.zeros(len(layout), dtype=torch.int64) if seeds is None else seeds
        return _DenoisingStream(self, layout, self.sampler if sampler is None else sampler, seeds)


class _DenoisingStream:
    """Full chunks -> features -> the sampler's stream -> inverse transform, trimmed to the true length."""

    def __init__(self, decoder: DenoisingDecoder, layout: Tensor, sampler: Sampler, seeds: Tensor) -> None:
        transform = decoder.representation
        chunk_samples = decoder.hop * decoder.frames_per_chunk
        if chunk_samples % transform.hop:
            raise PartitaError(
                f"a chunk has {chunk_samples} samples; a multiple of the transform's hop, {transform.hop}, is needed"
            )
        if not hasattr(sampler, "start"):
            raise PartitaError(
                f"sampler is {sampler!r}; an object with a `start` method, such as TwoStep(), is expected"
            )
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
        self._pending = 0  # samples of the latents pushed so far, minus those returned

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        decoder = self._decoder
        self._pending += x.shape[-1] // decoder.tokens_per_frame * decoder.hop
        # One chunk at a time, so that neither memory nor rounding depends on the size of the push.
        chunks = self._chunks.push(x, last=last).split(self._chunks.unit, dim=-1)
        audio = [self._denoise(chunk, last=last and i == len(chunks) - 1) for i, chunk in enumerate(chunks)]
        joined = torch.cat(audio, dim=-1)[..., : self._pending]  # the last chunk may have been padded
        self._pending -= joined.shape[-1]
        return joined

    def _denoise(self, chunk: Tensor, *, last: bool) -> Tensor:
        """The audio that becomes final with one more chunk, or with 0 chunks."""
        count = chunk.shape[-1] // self._chunks.unit
        # Networks cannot run on 0 chunks, so run one and slice its features away to get their shapes.
        chunk = F.pad(chunk, (0, self._chunks.unit * (1 - count)))
        features = self._decoder.condition(chunk, self._layout.to(chunk.device))
        features = tuple(f[:, :count] for f in features)
        return self._inverse.push(self._sampling.push(features, last=last), last=last)
