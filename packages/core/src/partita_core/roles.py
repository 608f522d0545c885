"""Roles of parts: abstract interfaces. Implementations are final; adapt one by wrapping it.

Shapes: audio `(batch, channels, samples)`; hidden frames and latents `(batch, dim, frames * K)`, frame-major, with K
tokens per frame; codes `(batch, num_quantizers, frames * K)`; features `(batch, frames, width)`. A `forward` takes
equal-length batches of full frames; `Codec` does the padding, grouping and trimming.
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
    """Context of parts in series: (None, None) if one of them is unbounded."""
    left = right = 0
    for before, after in contexts:
        if before is None or after is None:
            return (None, None)
        left, right = left + before, right + after
    return (left, right)


class BottleneckOutput(NamedTuple):
    """Output of a bottleneck.

    Attributes:
        values: latents `(batch, dim, frames * K)`, the decoder's input before `expand`.
        codes: `(batch, num_quantizers, frames * K)` int64, or None for a continuous bottleneck.
        losses: unweighted scalar losses by name; their weights are in `Bottleneck.loss_weights`.
        metrics: detached scalars for the log.
    """

    values: Tensor
    codes: Tensor | None
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]


class Posterior(NamedTuple):
    """Gaussian posterior distribution of latents.

    Attributes:
        mean: `(batch, dim, frames * K)`, the latents that encoding returns.
        std: standard deviation of each latent, of the same shape.
    """

    mean: Tensor
    std: Tensor

    def sample(self, seeds: Tensor | Sequence[int] | int) -> Tensor:
        """Draw a sample, given one seed for the batch or one per item; items do not affect each other."""
        batch, dim, tokens = self.mean.shape
        noise = keyed_noise(as_seeds(seeds, batch), "posterior", shape=(tokens, dim))
        return self.mean + self.std * noise.mT.to(self.mean)


class StepOutput(NamedTuple):
    """Output of one phase of an objective.

    Attributes:
        total: weighted scalar loss, at least float32, to call `backward` on.
        losses: unweighted losses by name, detached, for the log.
        metrics: further detached scalars for the log.
        samples: generated audio, detached, for the next phase; or None.
    """

    total: Tensor
    losses: dict[str, Tensor]
    metrics: dict[str, Tensor]
    samples: Tensor | None


class Role(nn.Module):
    """Base class of all roles.

    Attributes:
        context: frames to the left and right of a frame that `forward` depends on; None if unbounded.
    """

    context: Context = (0, 0)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare for inference, after weight norm is folded: cast to the precision, and compile if requested.

        Override to use a faster implementation; its outputs must match within 1e-4 of their RMS in float32.
        """
        if precision == "bf16":
            self.to(torch.bfloat16)
        if compile:
            compile_frozen(self)


class Encoder(Role, ABC):
    """Map from audio to hidden frames.

    Attributes:
        out_dim: number of channels of the hidden frames.
        hop: samples per frame.
        audio_spec: audio that it takes.
        tokens_per_frame: hidden vectors per frame (K).
        ordered: False if the tokens of a frame have no order in time.
        tile_seconds: recommended duration per call, for memory; see `Codec`.
    """

    out_dim: int
    hop: int
    audio_spec: AudioSpec
    tokens_per_frame: int = 1
    ordered: bool = True
    tile_seconds: float = 30.0

    @abstractmethod
    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` int64 to `(batch, out_dim, frames * K)`."""

    def stream(self, layout: Tensor, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """Stream from full frames of audio to hidden frames, at most `width` frames per call."""
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
    """Map from hidden frames to latents.

    Attributes:
        dim: number of channels of the latents.
        in_dim: number of channels of the hidden frames.
        loss_weights: weight in training of each name in `BottleneckOutput.losses`.
        codebook_sizes: number of codes per level; empty for a continuous bottleneck.
        bounded: True if the values lie in (-1, 1).
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

        Losses, metrics, running statistics and codebook updates use only the tokens within `lengths`. Codes of padding
        are -1; values of padding are unspecified.

        Args:
            hidden: hidden frames.
            stochastic: True for noise, sampling and dropout, also in eval mode; None for `self.training`. Running
                statistics and codebooks are updated only in training mode, and not if this is False.
            lengths: `(batch,)` int64, number of tokens of each item; None if all items are full.
        """

    def expand(self, values: Tensor) -> Tensor:
        """Map stored latents `(batch, dim, tokens)` to the scale of the decoder; the identity by default."""
        return values

    def project(self, values: Tensor) -> Tensor:
        """Map values `(batch, dim, tokens)` to the nearest latents that the bottleneck can make without noise.

        Use it on generated latents, for example to bring them back to a sphere. Encoded latents do not change. By
        default the identity, or clamping for bounded latents.
        """
        return values.clamp(-1, 1) if self.bounded else values

    def posterior(self, hidden: Tensor) -> Posterior:
        """Posterior of the latents of hidden frames `(batch, in_dim, tokens)`; `std` is 0 if nothing is sampled."""
        mean = self(hidden, stochastic=False).values
        return Posterior(mean, torch.zeros_like(mean))

    def is_stochastic(self, stochastic: bool | None) -> bool:
        """Resolve the argument `stochastic` of `forward`: None means `self.training`."""
        return self.training if stochastic is None else stochastic


class Quantizer(Bottleneck, ABC):
    """A bottleneck whose latents are the values of codes; `in_dim == dim`.

    In eval mode `forward(h).codes == encode_codes(h)` and `forward(h).values == codes_to_values(forward(h).codes)`.
    Re-encoding decoded values need not return the same codes. A quantizer is either the bottleneck of an autoencoder,
    trained with it, or attached afterwards to continuous latents.
    """

    @property
    def num_quantizers(self) -> int:
        """Number of levels or groups, the rows of codes."""
        return len(self.codebook_sizes)

    @abstractmethod
    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Encode the hidden frames of `forward` to codes `(batch, num_quantizers, tokens)` int64.

        Codes of levels from `num_quantizers` on are -1.
        """

    @abstractmethod
    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Look up values `(batch, dim, tokens)` of codes; a code of -1 contributes zero."""

    def check_codes(self, codes: Any) -> Tensor:
        """Check codes and return them as int64; call it first in `codes_to_values`.

        Raises:
            PartitaError: the shape or type does not fit, or a code is out of range; see `partita_core.check_codes`.
        """
        return check_codes(codes, self.codebook_sizes)


class Decoder(Role, ABC):
    """Map from expanded latents to audio.

    Attributes:
        hop: samples per frame.
        in_dim: number of channels of the latents.
        tokens_per_frame: latent vectors per frame (K).
        audio_spec: audio that it makes.
        tile_seconds: recommended duration per call, for memory; see `Codec`.
    """

    hop: int
    in_dim: int
    audio_spec: AudioSpec
    tokens_per_frame: int = 1
    tile_seconds: float = 30.0

    @abstractmethod
    def generate(self, hidden: Tensor, layout: Tensor, *, sampler: Any = None, seeds: Tensor | None = None) -> Tensor:
        """Decode `(batch, in_dim, frames * K)` to audio `(batch, channels, hop * frames)`."""

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
        """Stream from full frames of latents to audio, at most `width` frames per call."""


class FeedForwardDecoder(Decoder, ABC):
    """A decoder that makes audio in one forward pass."""

    @abstractmethod
    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames * K)` to exactly `(batch, channels, hop * frames)`."""

    def generate(self, hidden: Tensor, layout: Tensor, *, sampler: Any = None, seeds: Tensor | None = None) -> Tensor:
        """Call `forward`. Raises if a sampler is given; seeds are ignored."""
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
        """Stream of `forward`; see `Decoder`."""
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
    """Invertible transform of audio to the representation that a denoising decoder works on.

    Attributes:
        hop: samples per frame of the transform.
        context: frames of the transform, to the left and right, that the samples of a frame depend on in `inverse`.
    """

    hop: int
    context: tuple[int, int]

    @abstractmethod
    def forward(self, audio: Tensor) -> Tensor:
        """Transform `(batch, channels, hop * frames)` to `(batch, features, bins, frames)`."""

    @abstractmethod
    def inverse(self, x: Tensor) -> Tensor:
        """Invert `forward`, exactly for audio without energy at the Nyquist bin."""


class RepresentationEncoder(Role, ABC):
    """Map from latents to features for understanding tasks.

    If its context to the left is unbounded it carries a state (see `Streamable`); `step` then returns
    `(batch, frames, width)`.

    Attributes:
        dim: number of channels of the latents.
        tokens_per_frame: latent vectors per frame (K).
        width: number of channels of the features.
    """

    dim: int
    tokens_per_frame: int = 1
    width: int

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """Map `(batch, dim, frames * K)` to `(batch, frames, width)`."""

    def stream(self, batch_size: int, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """Stream from full frames of latents to features `(batch, width, frames)`, at most `width` frames per call.

        In streams, time is the last axis. The latency of this stream is in frames.

        Raises:
            UnboundedError: the context is unbounded, and there is no state.
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
    """Adapter of a representation encoder with a state, for streams, where time is the last axis."""

    def __init__(self, part: Any) -> None:
        self.init_state, self._step = part.init_state, part.step

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        features, state = self._step(x, state, last=last)
        return features.mT, state


class Loss(nn.Module, ABC):
    """Distance between signals, one value per item, shared by training, evaluation and tests."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of `prediction` to `target`, both `(batch, channels, samples)`, as `(batch,)`, at least float32.

        Args:
            prediction: predicted signals.
            target: target signals, of the same shape.
            lengths: `(batch,)` integers; samples from there on are padding and ignored. None if all items are full.

        Raises:
            PartitaError: the shapes differ.
        """


class Sampler(Protocol):
    """Algorithm that runs a denoising decoder: a frozen dataclass of its settings.

    Attributes:
        latency: delay in chunks; None if all chunks are needed first.

    Example:
        >>> sampler = OneStep(sigma=1.0)
        >>> audio = codec.decode(latents, sampler=sampler, seed=0)
        >>> stream = StreamDecoder(codec, layout="mono", sampler=sampler, seed=0)
        >>> torch.allclose(stream.push(latents, last=True), audio)
        True
    """

    @property
    def latency(self) -> int | None:
        """Delay in chunks, or None."""
        ...

    def start(self, decoder: Any, seeds: Tensor) -> Any:
        """Start a stream whose `push(features of n chunks, last=)` returns the chunks that are final."""
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
    """Start the stream of a part: a `TiledStream` if its context is bounded, a `StatefulStream` if it has a state.

    Raises:
        UnboundedError: the context is unbounded, and the part has no state.
    """
    left, right = part.context
    if left is not None and right is not None:
        return TiledStream(fn, units_in=units_in, units_out=units_out, context=(left, right), hop=hop, width=width)
    if isinstance(part, Streamable):
        device = next((tensor.device for tensor in part.parameters()), torch.device("cpu"))
        return StatefulStream(part, len(layout), layout=layout, device=device, dtype=dtype, width=width * units_in)
    raise UnboundedError(f"{type(part).__name__} sees unbounded context and carries no state: it cannot be streamed")
