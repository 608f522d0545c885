"""Denoising decoders: noise schedule, the interface to samplers, and the stream from latents to audio."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .decoder_roles import Decoder
from .errors import PartitaError
from .ranges import Positive, Ranged
from .streams import FrameAligner, Stream, TiledStream, Tree, map_tree
from .typed_module import TypedModule


@dataclass(frozen=True)
class NoiseSchedule(Ranged):
    """Noise level as a function of time in [0, 1], linear in `sigma ** (1 / rho)` (Karras et al., 2206.00364, eq. 5).

    Attributes:
        sigma_min: noise level at time 0, at which a denoiser returns its input.
        sigma_max: noise level at time 1, at which nothing is left of the signal.
        rho: exponent; larger values place more of the times at small levels.
    """

    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    rho: Positive = 7.0

    def __post_init__(self) -> None:
        """Check the order of the levels."""
        super().__post_init__()
        if not self.sigma_min < self.sigma_max:
            raise PartitaError(
                f"sigma_min is {self.sigma_min} and sigma_max is {self.sigma_max}; sigma_min must be smaller"
            )

    def sigma(self, time: Any) -> Any:
        """Noise level at a time, a float or a tensor."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + time * (high - low)) ** self.rho

    def time(self, sigma: Any) -> Any:
        """Time of a noise level, a float or a tensor."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (sigma ** (1 / self.rho) - low) / (high - low)


class Sampler(Protocol):
    """Sampling procedure of a denoising decoder: a frozen dataclass of its settings.

    Attributes:
        latency: number of chunks held back; None if all chunks are needed first.

    Example:
        >>> sampler = OneStep(sigma=1.0)
        >>> audio = codec.decode(latents, sampler=sampler, seed=0)
        >>> stream = StreamDecoder(codec, layout="mono", sampler=sampler, seed=0)
        >>> torch.allclose(stream.push(latents, last=True), audio)
        True
    """

    @property
    def latency(self) -> int | None:
        """Number of chunks held back, or None."""
        ...

    def start(self, decoder: Any, seeds: Tensor) -> Any:
        """Start a stream, whose `push(features, last=)` takes the features of n chunks and returns final chunks."""
        ...


class AudioTransform(TypedModule, ABC):
    """Invertible transform of audio, in which a denoising decoder works.

    Attributes:
        hop: samples per frame of the transform.
        context: frames of the transform to the left and right that a frame of audio depends on in `inverse`.
    """

    hop: int
    context: tuple[int, int]

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Transform audio `(batch, channels, hop * frames)` to `(batch, features, bins, frames)`."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """Invert the transform; exact for audio without energy at the Nyquist bin."""


class DenoisingDecoder(Decoder, ABC):
    """Decoder from noise to a representation of audio, chunk by chunk, conditioned on latents.

    Attributes:
        window: maximum number of chunks per denoising step.
        frames_per_chunk: latent frames per chunk.
        condition_context: chunks to the left and right of a chunk that its features depend on.
        schedule: noise levels of training and sampling.
        representation: transform of audio that is denoised; `hop * frames_per_chunk` is a multiple of its hop.
        sampler: default sampler.
        loss_weights: training weight of each name in `losses`.
    """

    window: int
    frames_per_chunk: int
    condition_context: tuple[int, int] = (0, 0)
    schedule: NoiseSchedule
    representation: AudioTransform
    sampler: Sampler
    loss_weights: Mapping[str, float] = {}

    @abstractmethod
    def condition(self, hidden: Tensor, layout: Tensor) -> tuple[Tensor, ...]:
        """Compute features of the n chunks in latents `(batch, in_dim, n * frames_per_chunk * K)`.

        Each is `(batch, n, ...)`, so that the features of chunks i to j are `f[:, i:j]`. The features of a chunk depend
        only on its own latents and on those of `condition_context` chunks before and after.
        """

    def condition_stream(self, layout: Tensor) -> Stream:
        """Return a stream from the latents of full chunks to their features, with the chunks along the last axis."""
        return self.chunk_stream(lambda hidden: self.condition(hidden, layout.to(hidden.device)))

    def chunk_stream(
        self,
        features: Callable[[Tensor], Tree],
        *,
        unit: int | None = None,
        context: tuple[int, int] | None = None,
    ) -> TiledStream:
        """Stream of a function that computes features of chunks, with the chunks along the last axis.

        The function is called once per chunk, so that memory does not grow with a push, and rounding does not depend on
        how the input is split.

        Args:
            features: function from `(batch, dim, n * unit)` to a tree of features `(batch, n, ...)`.
            unit: input steps per chunk; None for the tokens of a chunk.
            context: chunks to the left and right that the features depend on; None for `condition_context`.
        """
        return TiledStream(
            lambda hidden: map_tree(lambda f: f.movedim(1, -1), features(hidden)),
            units_in=self.frames_per_chunk * self.tokens_per_frame if unit is None else unit,
            units_out=1,
            context=self.condition_context if context is None else context,
            hop=self.hop * self.frames_per_chunk,
            width=1,
        )

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """Denoise w consecutive chunks in one step, with w from 1 to `window`.

        Args:
            x: noisy representations `(batch, C, F, w * T)`.
            sigma: noise level of each chunk, `(batch, w)`.
            features: features of the same chunks, from `condition`.
        """

    def losses(self, features: tuple[Tensor, ...], clean: Tensor) -> dict[str, Tensor]:
        """Compute losses besides denoising, one value per chunk, each `(batch, w)`, at least float32; none by default.

        Args:
            features: features of w chunks, from `condition`.
            clean: clean representations of the same chunks, `(batch, C, F, w * T)`.
        """
        return {}

    def deviation(self, features: tuple[Tensor, ...]) -> Tensor | None:
        """Predicted standard deviation of each point of w chunks, `(batch, C, F, w * T)`, or None (the default).

        Training divides distances by it.
        """
        return None

    def generate(
        self, hidden: Tensor, layout: Tensor, *, sampler: Sampler | None = None, seeds: Tensor | None = None
    ) -> Tensor:
        """Decode to audio `(batch, channels, hop * frames)`, by one push to a stream; see `Decoder.generate`."""
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
        """Return a stream from latents to audio, one chunk at a time for any `width`; see `Decoder.stream`."""
        seeds = torch.zeros(len(layout), dtype=torch.int64) if seeds is None else seeds
        return _DenoisingStream(self, layout, self.sampler if sampler is None else sampler, seeds)


class _DenoisingStream:
    """Complete chunks -> features -> sampler -> inverse transform, cut to the true length at the end."""

    def __init__(self, decoder: DenoisingDecoder, layout: Tensor, sampler: Sampler, seeds: Tensor) -> None:
        transform = decoder.representation
        chunk_samples = decoder.hop * decoder.frames_per_chunk
        if chunk_samples % transform.hop:
            raise PartitaError(
                f"a chunk of {chunk_samples} samples is not a multiple of the transform's hop, {transform.hop}"
            )
        if not hasattr(sampler, "start"):
            raise PartitaError(f"{sampler!r} is not a sampler; choose one of `partita_core.components('sampler/*')`")
        self._decoder = decoder
        unit = decoder.frames_per_chunk * decoder.tokens_per_frame
        self._chunks = FrameAligner(unit, samples=decoder.hop // decoder.tokens_per_frame)
        self._features = decoder.condition_stream(layout)
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
        self.latency = self._chunks.latency + self._features.latency + held + self._inverse.latency
        self._pending = 0  # samples of the latents pushed so far, minus those returned

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        decoder = self._decoder
        self._pending += x.shape[-1] // decoder.tokens_per_frame * decoder.hop
        # One chunk at a time, so that memory does not grow with the push, and rounding does not depend on the split.
        chunks = self._chunks.push(x, last=last).split(self._chunks.unit, dim=-1)
        audio = [self._denoise(chunk, last=last and i == len(chunks) - 1) for i, chunk in enumerate(chunks)]
        joined = torch.cat(audio, dim=-1)[..., : self._pending]  # the last chunk may have been padded
        self._pending -= joined.shape[-1]
        return joined

    def _denoise(self, chunk: Tensor, *, last: bool) -> Tensor:
        """Return the audio that becomes final after one more chunk, or after none."""
        features = map_tree(lambda f: f.movedim(-1, 1), self._features.push(chunk, last=last))
        return self._inverse.push(self._sampling.push(features, last=last), last=last)
