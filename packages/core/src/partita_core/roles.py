"""Abstract base classes of the parts of a codec: encoder, bottleneck, quantizer and loss.

Decoders are in `decoder_roles` and `denoising`, representation encoders in `representation_role`.

Shapes: audio `(batch, channels, samples)`; hidden and latents `(batch, dim, frames * K)`, frame-major, with K tokens
per frame; codes `(batch, num_quantizers, frames * K)`; features `(batch, frames, width)`. A `forward` takes
equal-length batches of complete frames; `Codec` pads, groups and trims. Implementations are not subclassed further: to
adapt one, wrap it.

Roles are `TypedModule`s: type checkers see the signature of `forward` in `module(x)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .codes import check_codes
from .errors import PartitaError
from .precision import Precision, compile_frozen
from .role_outputs import BottleneckOutput, Posterior
from .specs import AudioSpec
from .streams import StatefulStream, Stream, Streamable, TiledStream, UnboundedError
from .typed_module import TypedModule
from .zero_start import matrix_layers, set_to_zero

Context = tuple[int | None, int | None]


def sum_contexts(*contexts: Context) -> Context:
    """Context of parts in sequence: (None, None) if one of them is unbounded."""
    left = right = 0
    for before, after in contexts:
        if before is None or after is None:
            return (None, None)
        left, right = left + before, right + after
    return (left, right)


def widest_context(*contexts: Context) -> Context:
    """Context of parts in parallel: None on a side where one of them is unbounded."""
    left, right = (None if None in side else max(side) for side in zip(*contexts))
    return (left, right)


class Role(TypedModule):
    """Base class of all roles.

    Attributes:
        context: number of frames to the left and right of a frame that its output depends on; None if unbounded.
    """

    context: Context = (0, 0)

    def start_at_zero(self) -> None:
        """Set the last layers to zero, so that the output is zero and its gradient is not.

        A linear path does so with the network beside it. By default this is the module with a weight matrix that was
        registered last; override it if the output is made by several.

        Raises:
            PartitaError: the part has no such layer.
        """
        layers = matrix_layers(self)
        if not layers:
            raise PartitaError(f"{type(self).__name__} has no layer that could start at zero")
        set_to_zero(layers[-1])

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare for inference, after weight norm has been folded.

        Override to use a faster implementation; its outputs must match within 1e-4 of their RMS in float32.

        Args:
            precision: precision of the weights.
            compile: whether to compile `forward`.
        """
        if precision == "bf16":
            self.to(torch.bfloat16)
        if compile:
            compile_frozen(self)


class Encoder(Role, ABC):
    """Map from audio to hidden frames.

    Attributes:
        out_dim: width of the hidden frames.
        hop: samples per frame.
        audio_spec: format of the input audio.
        tokens_per_frame: hidden vectors per frame (K).
        ordered: False if the tokens of a frame have no order in time.
        tile_seconds: preferred length of a tile in seconds, to bound memory; see `Codec`.
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
        """Return a stream from frames of audio to hidden frames.

        Args:
            layout: channel layout of each item, `(batch,)` int64.
            dtype: dtype of the audio.
            width: maximum number of frames per call of `forward`, context aside.
        """
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
        dim: width of the latents.
        in_dim: width of the hidden frames.
        loss_weights: training weight of each name in `BottleneckOutput.losses`.
        codebook_sizes: number of codes of each level; empty for a continuous bottleneck.
        bounded: True if the values lie in (-1, 1).
        expand_context: tokens to the left and right of a token that `expand` depends on.
    """

    dim: int
    in_dim: int
    loss_weights: dict[str, float] = {}
    codebook_sizes: tuple[int, ...] = ()
    bounded: bool = False
    expand_context: Context = (0, 0)

    @property
    def expanded_dim(self) -> int:
        """Width that `expand` returns, which is the decoder's; that of the latents by default."""
        return self.dim

    @abstractmethod
    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Map `(batch, in_dim, tokens)` to latents.

        Losses, metrics, running statistics and codebooks use only the tokens within `lengths`: padding after a short
        item does not affect training. Its codes are -1, and its values are unspecified.

        Args:
            hidden: hidden frames.
            stochastic: True for noise, sampling and dropout, also in eval mode; None means `self.training`. Running
                statistics and codebooks are updated only in training mode, and not if False.
            lengths: number of valid tokens of each item, `(batch,)` int64; None if all are valid.
        """

    def expand(self, values: Tensor) -> Tensor:
        """Map stored latents `(batch, dim, tokens)` to the decoder's input `(batch, expanded_dim, tokens)`.

        A scaling to the decoder's range, for example; identity by default.
        """
        return values

    def project(self, values: Tensor) -> Tensor:
        """Project values `(batch, dim, tokens)` to the nearest latents that the bottleneck can produce without noise.

        This returns generated latents to a sphere, for example; encoded latents do not change. By default it clamps
        to [-1, 1] if the bottleneck is bounded, and is the identity otherwise.
        """
        return values.clamp(-1, 1) if self.bounded else values

    def posterior(self, hidden: Tensor) -> Posterior:
        """Distribution of the latents of hidden frames `(batch, in_dim, tokens)`; std is 0 without sampling."""
        mean = self(hidden, stochastic=False).values
        return Posterior(mean, torch.zeros_like(mean))

    def is_stochastic(self, stochastic: bool | None) -> bool:
        """Resolve the argument `stochastic` of `forward`: None means `self.training`."""
        return self.training if stochastic is None else stochastic


class Quantizer(Bottleneck, ABC):
    """Bottleneck whose latents are the values of codes; `in_dim == dim`.

    In eval mode `forward(h).codes == encode_codes(h)` and `forward(h).values == codes_to_values(forward(h).codes)`.
    Re-encoding decoded values need not return the same codes. A quantizer is either the bottleneck of an autoencoder,
    trained with it, or is trained afterwards on continuous latents.
    """

    @property
    def num_quantizers(self) -> int:
        """Number of levels or groups, which are the rows of the codes."""
        return len(self.codebook_sizes)

    @abstractmethod
    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Encode hidden frames `(batch, dim, tokens)` to codes `(batch, levels, tokens)` int64.

        Args:
            hidden: hidden frames, as in `forward`.
            num_quantizers: number of levels to use; the codes of the others are -1. None for all.
        """

    @abstractmethod
    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Decode codes, as in `check_codes`, to values `(batch, dim, tokens)`; a level of -1 contributes zero."""

    def check_codes(self, codes: Any) -> Tensor:
        """Validate codes and convert them to int64; called first in `codes_to_values`.

        Raises:
            PartitaError: wrong shape or type, or a code outside its codebook; see `partita_core.check_codes`.
        """
        return check_codes(codes, self.codebook_sizes)


class Loss(TypedModule, ABC):
    """Distance between two signals, one value per item, shared by training, evaluation and tests."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Compute the distance of each item, `(batch,)`, at least float32.

        Args:
            prediction: audio `(batch, channels, samples)`.
            target: audio of the same shape; any other shape is an error.
            lengths: number of valid samples of each item, `(batch,)`; samples from there on are padding and do not
                count. None if all are valid.
        """


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
    """Stream of one part: `TiledStream` if its context is bounded, or else `StatefulStream` if it carries a state.

    Raises:
        UnboundedError: the context is unbounded and there is no state to carry; the message names the part.
    """
    left, right = part.context
    if left is not None and right is not None:
        return TiledStream(fn, units_in=units_in, units_out=units_out, context=(left, right), hop=hop, width=width)
    if isinstance(part, Streamable):
        device = next((tensor.device for tensor in part.parameters()), torch.device("cpu"))
        return StatefulStream(part, len(layout), layout=layout, device=device, dtype=dtype, width=width * units_in)
    raise UnboundedError(f"{type(part).__name__} sees unbounded context and carries no state: it cannot be streamed")
