"""The roles that parts play. Each is abstract; an implementation is final, and is adapted by wrapping it.

Shapes: audio `(batch, channels, samples)`; hidden and latents `(batch, dim, frames * K)`, frame-major, with K tokens a
frame; codes `(batch, num_quantizers, frames * K)`; features `(batch, frames, width)`. A `forward` takes equal-length
batches of whole frames; padding, grouping and trimming are `Codec`'s.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ._checks import as_seeds
from .codes import check_codes
from .errors import PartitaError
from .noise import keyed_noise
from .precision import Precision, compile_frozen
from .specs import AudioSpec
from .streams import StatefulStream, Stream, Streamable, TiledStream, UnboundedError

Context = tuple[int | None, int | None]


def sum_contexts(*contexts: Context) -> Context:
    """The context of parts in a row: (None, None) where one of them is unbounded."""
    left = right = 0
    for before, after in contexts:
        if before is None or after is None:
            return (None, None)
        left, right = left + before, right + after
    return (left, right)


class BottleneckOutput(NamedTuple):
    """What a bottleneck makes of hidden frames.

    Attributes:
        values: `(batch, dim, frames * K)`, what the decoder is trained on (before `expand`).
        codes: `(batch, num_quantizers, frames * K)` int64, or None for a continuous bottleneck.
        losses: the bottleneck's own terms, raw scalars by name; weighed by `Bottleneck.loss_weights`.
        metrics: detached scalars for the log.
    """

    values: Tensor
    codes: Tensor | None
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Posterior(NamedTuple):
    """A Gaussian for every latent: the mean is what encoding gives.

    Attributes:
        mean: `(batch, dim, frames * K)`.
        std: standard deviations, likewise.
    """

    mean: Tensor
    std: Tensor

    def sample(self, seeds: Tensor | Sequence[int] | int) -> Tensor:
        """A sample as large as the mean, by a seed for the batch or one per item; independent of other items."""
        batch, dim, tokens = self.mean.shape
        noise = keyed_noise(as_seeds(seeds, batch), "posterior", shape=(tokens, dim))
        return self.mean + self.std * noise.mT.to(self.mean)


class StepOutput(NamedTuple):
    """What one phase of an objective returns.

    Attributes:
        total: the weighted scalar, at least float32, to send backward.
        losses: raw terms by name, detached, for the log.
        metrics: further detached scalars for the log.
        samples: what the phase made, detached, for the next phase; or None.
    """

    total: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
    samples: Tensor | None


class Role(nn.Module):
    """Base of every role.

    Attributes:
        context: frames to the left and right of a frame that `forward` sees; None where that is unbounded.
    """

    context: Context = (0, 0)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepares for inference, once weight norm is folded: the weights' precision, and compiling if asked for.

        A part that has something better overrides this; what it returns then is equal to 1e-4 of the RMS in float32.
        """
        if precision == "bf16":
            self.to(torch.bfloat16)
        if compile:
            compile_frozen(self)


class Encoder(Role, ABC):
    """Audio to hidden frames.

    Attributes:
        out_dim: width of the hidden frames.
        hop: samples in a frame.
        audio_spec: the audio it takes.
        tokens_per_frame: hidden vectors a frame (K).
        ordered: False where the tokens of a frame have no order in time.
        tile_seconds: audio that is best taken at a time, a matter of memory; see `Codec`.
    """

    out_dim: int
    hop: int
    audio_spec: AudioSpec
    tokens_per_frame: int = 1
    ordered: bool = True
    tile_seconds: float = 30.0

    @abstractmethod
    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encodes `(batch, channels, hop * frames)` of layouts `(batch,)` int64 to `(batch, out_dim, frames * K)`."""

    def stream(self, layout: Tensor, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """A stream from whole frames of audio to hidden frames; `width` bounds the frames of one call."""
        return part_stream(
            self,
            lambda audio: self(audio, layout.to(audio.device)),
            units_in=self.hop,
            units_out=self.tokens_per_frame,
            hop=self.hop,
            width=width,
            layout=layout,
            dtype=dtype,
        )


class Bottleneck(Role, ABC):
    """Hidden frames to latents.

    Attributes:
        dim: width of the latents.
        in_dim: width of the hidden frames it takes.
        loss_weights: for each name in `BottleneckOutput.losses`, its weight in training.
        codebook_sizes: number of codes of each level; empty for a continuous bottleneck.
        bounded: the values lie in (-1, 1).
    """

    dim: int
    in_dim: int
    loss_weights: dict[str, float] = {}
    codebook_sizes: tuple[int, ...] = ()
    bounded: bool = False

    @abstractmethod
    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Map `(batch, in_dim, tokens)` to latents.

        Losses, metrics, running statistics and codebooks are over the tokens within `lengths`, those that hold audio:
        the padding behind a short item is not learned from. Its codes are -1, and its values are not specified.

        Args:
            hidden: hidden frames.
            stochastic: True for noise, sampling and dropout, also in eval mode; None means `self.training`. Running
                statistics and codebooks move only in training, and not with False.
            lengths: `(batch,)` int64, tokens of each item that hold audio; None where all do.
        """

    def expand(self, values: Tensor) -> Tensor:
        """Latents as stored, `(batch, dim, tokens)`, at the scale the decoder takes; the identity for most."""
        return values

    def project(self, values: Tensor) -> Tensor:
        """The nearest latents that the bottleneck can make without noise, for values `(batch, dim, tokens)`.

        Generated latents are brought back by it to a sphere, say. Latents that were encoded stay as they are; the
        identity for bottlenecks whose latents lie anywhere, and the nearest values within the bounds of bounded ones.
        """
        return values.clamp(-1, 1) if self.bounded else values

    def posterior(self, hidden: Tensor) -> Posterior:
        """Distribution of the latents of hidden frames `(batch, in_dim, tokens)`; a point where nothing is sampled."""
        mean = self(hidden, stochastic=False).values
        return Posterior(mean, torch.zeros_like(mean))

    def is_stochastic(self, stochastic: bool | None) -> bool:
        """Value of the argument `stochastic` of `forward`, with None resolved."""
        return self.training if stochastic is None else stochastic


class Quantizer(Bottleneck, ABC):
    """A bottleneck whose latents are the values of codes; `in_dim == dim`.

    In eval mode `forward(h).codes == encode_codes(h)` and `forward(h).values == codes_to_values(forward(h).codes)`.
    That encoding a decoded code returns it is not promised. It serves in the bottleneck's slot, trained with the
    autoencoder, or in the quantizer's, attached afterwards to continuous latents.
    """

    @property
    def num_quantizers(self) -> int:
        """Levels, or groups: rows of the codes."""
        return len(self.codebook_sizes)

    @abstractmethod
    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes `(batch, num_quantizers, tokens)` int64 of the hidden frames that `forward` takes.

        With fewer levels than there are, the rest is -1.
        """

    @abstractmethod
    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes, as `check_codes` takes them; a level that is -1 contributes zero."""

    def check_codes(self, codes: Any) -> Tensor:
        """Codes as int64, each of its codebook; the first line of `codes_to_values`.

        Raises:
            PartitaError: shape, type or a code does not fit; see `partita_core.check_codes`.
        """
        return check_codes(codes, self.codebook_sizes)


class Decoder(Role, ABC):
    """Latents, expanded, to audio: what `Codec` sees of every decoder.

    Attributes:
        hop: samples in a frame.
        in_dim: width of the latents it takes.
        tokens_per_frame: latent vectors a frame (K).
        audio_spec: the audio it makes.
        tile_seconds: audio that is best made at a time, a matter of memory; see `Codec`.
    """

    hop: int
    in_dim: int
    audio_spec: AudioSpec
    tokens_per_frame: int = 1
    tile_seconds: float = 30.0

    @abstractmethod
    def generate(self, hidden: Tensor, layout: Tensor, *, sampler: Any = None, seeds: Tensor | None = None) -> Tensor:
        """Audio `(batch, channels, hop * frames)` from `(batch, in_dim, frames * K)`."""

    @abstractmethod
    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """A stream from whole frames of latents to their audio; `width` bounds the frames of one call."""


class FeedForwardDecoder(Decoder, ABC):
    """A decoder that makes audio in one pass."""

    @abstractmethod
    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decodes `(batch, in_dim, frames * K)` to exactly `(batch, channels, hop * frames)`."""

    def generate(self, hidden: Tensor, layout: Tensor, *, sampler: Any = None, seeds: Tensor | None = None) -> Tensor:
        """One `forward`; a sampler is an error, seeds have nothing to decide."""
        self._refuse(sampler)
        return self(hidden, layout)

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """The stream of `forward`."""
        self._refuse(sampler)
        return part_stream(
            self,
            lambda hidden: self(hidden, layout.to(hidden.device)),
            units_in=self.tokens_per_frame,
            units_out=self.hop,
            hop=self.hop,
            width=width,
            layout=layout,
            dtype=dtype,
        )

    def _refuse(self, sampler: Any) -> None:
        if sampler is not None:
            raise PartitaError(f"{type(self).__name__} decodes in one pass; it takes no sampler, and got {sampler!r}")


class AudioTransform(nn.Module, ABC):
    """An invertible transform of audio, as a denoising decoder works in.

    Attributes:
        hop: samples in one of its own frames.
        context: its own frames that a frame's samples depend on, left and right, in `inverse`.
    """

    hop: int
    context: tuple[int, int]

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` to `(batch, features, bins, frames)`."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """The way back, exact on audio that has no energy at the Nyquist bin."""


class RepresentationEncoder(Role, ABC):
    """Latents to features for understanding.

    One that sees all of the past carries a state; see `Streamable`, whose `step` returns `(batch, frames, width)`.

    Attributes:
        dim: width of the latents it takes.
        tokens_per_frame: latent vectors a frame (K).
        width: of the features.
    """

    dim: int
    tokens_per_frame: int = 1
    width: int

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """`(batch, dim, frames * K)` to `(batch, frames, width)`."""

    def stream(self, batch_size: int, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """A stream from whole frames of latents to features, `(batch, width, frames)`: in streams, time is last.

        Its latency is in frames. `width` bounds the frames of one call.

        Raises:
            UnboundedError: its context is unbounded and it carries no state.
        """
        k = self.tokens_per_frame
        if isinstance(self, Streamable):
            device = next((tensor.device for tensor in self.parameters()), torch.device("cpu"))
            part = _TimeLast(self)
            return StatefulStream(part, batch_size, layout=None, device=device, dtype=dtype, width=width * k)
        left, right = self.context
        if left is None or right is None:
            raise UnboundedError(f"{type(self).__name__} sees unbounded context and carries no state")
        context = (left, right)
        return TiledStream(lambda x: self(x).mT, units_in=k, units_out=1, context=context, hop=1, width=width)


class _TimeLast:
    """A representation encoder with a state, as streams take it."""

    def __init__(self, part: Any) -> None:
        self.init_state, self._step = part.init_state, part.step

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        features, state = self._step(x, state, last=last)
        return features.mT, state


class Loss(nn.Module, ABC):
    """A distance between two signals, one figure an item, so that training, evaluation and tests share it."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The distance of `(batch, channels, samples)` to as much, as `(batch,)`, at least float32.

        Samples from `lengths` on, `(batch,)` integers as a tensor, an array or a list, are padding and do not count.
        Different shapes are an error.
        """


class Sampler(Protocol):
    """How a denoising decoder is run: a frozen dataclass of its settings.

    Attributes:
        latency: chunks held back; None where the whole is needed first.
    """

    @property
    def latency(self) -> int | None:
        """Chunks held back, or None."""
        ...

    def start(self, decoder: Any, seeds: Tensor) -> Any:
        """A stream: its `push(features of n chunks, last=)` returns the chunks that are final."""
        ...


def part_stream(
    part: Role,
    fn: Any,
    *,
    units_in: int,
    units_out: int,
    hop: int,
    width: int,
    layout: Tensor,
    dtype: torch.dtype,
) -> Stream:
    """The stream of one part: `TiledStream` where its context is, else `StatefulStream` where it carries a state.

    Raises:
        UnboundedError: its context is unbounded and it carries no state; it is named.
    """
    left, right = part.context
    if left is not None and right is not None:
        return TiledStream(fn, units_in=units_in, units_out=units_out, context=(left, right), hop=hop, width=width)
    if isinstance(part, Streamable):
        device = next((tensor.device for tensor in part.parameters()), torch.device("cpu"))
        return StatefulStream(part, len(layout), layout=layout, device=device, dtype=dtype, width=width * units_in)
    raise UnboundedError(f"{type(part).__name__} sees unbounded context and carries no state: it cannot be streamed")
