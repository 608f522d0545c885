"""Base class of adapted codecs, with decoding, contexts of their convolutions and codebook look-up."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from partita_blocks import conv_reach, conv_transpose_reach
from partita_core import AudioSpec, ChannelLayout, Codec, Config, PartitaError, Saved, reject_sampler
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv1d | nn.ConvTranspose1d


class ExternalCodec(Codec, Saved):
    """A codec of another library, with its original networks and parameter names.

    Attributes:
        config: Config that builds it.
        encoder: network from audio to hidden frames.
        decoder: network from values to audio. Not part of `space_id`, so it may be fine-tuned or replaced.
    """

    config: Config
    encoder: nn.Module
    decoder: nn.Module

    @abstractmethod
    def synthesize(self, values: Tensor) -> Tensor:
        """Decode values `(batch, dim, frames)` to audio `(batch, channels, about hop * frames)`."""

    def _look_up(self, codes: Tensor) -> Tensor:
        """Look up the values of valid codes."""
        return super().codes_to_values(codes)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Look up the values of codes; see `Codec`."""
        if self.latent_spec.codebook_sizes:
            codes = self.check_codes(codes)
            if not codes.shape[-1]:
                raise PartitaError(f"codes have shape {tuple(codes.shape)}; at least one token is needed")
        return self._look_up(codes)

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Decode values or codes; see `Codec`."""
        values = self.values_of(values, codes, sampler)
        return fit(self.synthesize(values), values.shape[-1] * self.latent_spec.hop)

    def values_of(self, values: Tensor | None, codes: Tensor | None, sampler: Any) -> Tensor:
        """Values to decode, looked up from the codes if there are no values.

        Raises:
            PartitaError: a sampler is given.
        """
        reject_sampler(self, sampler)
        if values is None:
            assert codes is not None
            values = self.codes_to_values(codes)
        return values

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Config, the latent spec and the fingerprints; see `Saved`."""
        return self.config, self._saved_facts()

    def _space_weights(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in super()._space_weights().items() if not name.startswith("decoder.")}

    def _space_facts(self) -> Any:
        return [type(self).__name__, self.latent_spec.sample_rate, self.latent_spec.hop]


def audio_spec(sample_rate: int, channels: int) -> AudioSpec:
    """Spec of a network for mono (1 channel) or stereo (2 channels)."""
    return AudioSpec(sample_rate, channels, (ChannelLayout.MONO if channels == 1 else ChannelLayout.STEREO,))


def fit(x: Tensor, length: int) -> Tensor:
    """Truncate or zero-pad `x` at its end to `length`; some networks return a few samples less or more."""
    return F.pad(x, (0, length - x.shape[-1]))


# ------------------------------------------------------------------ codes


def drop_levels(codes: Tensor, num_quantizers: int | None) -> Tensor:
    """Set levels from `num_quantizers` on to -1, in place; residual quantization is greedy, so other levels stay."""
    if num_quantizers is not None:
        codes[:, num_quantizers:] = -1
    return codes


def look_up(table: Tensor, codes: Tensor) -> Tensor:
    """Rows `(batch, dim, tokens)` of `table` for codes `(batch, tokens)`; zeros for code -1."""
    return (F.embedding(codes.clamp(min=0), table) * (codes >= 0).unsqueeze(-1)).mT


# ------------------------------------------------------------------ context


def _own_padding(conv: Convolution) -> int:
    return int(conv.padding[0])


def reach(
    network: nn.Module, first: int, last: int, padding: Callable[[Convolution], int] = _own_padding
) -> tuple[int, int]:
    """First and last input position that outputs `first` to `last` of a network depend on.

    Args:
        network: network whose convolutions are registered in the order in which they run; side paths are shorter.
        first: first output position.
        last: last output position.
        padding: left padding of a convolution, or samples cut on the left of a transposed one.
    """
    for conv in reversed([module for module in network.modules() if isinstance(module, Convolution)]):
        kernel, stride, dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
        if isinstance(conv, nn.ConvTranspose1d):
            first, last = conv_transpose_reach(first, last, kernel, stride=stride, padding=padding(conv))
        else:
            first, last = conv_reach(first, last, kernel, stride=stride, dilation=dilation, padding=padding(conv))
    return first, last


def frame_context(
    network: nn.Module, units_in: int, units_out: int, padding: Callable[[Convolution], int] = _own_padding
) -> tuple[int, int]:
    """Context in frames to the left and right of a network from `units_in` steps per frame to `units_out`."""
    first, last = reach(network, 0, units_out - 1, padding)
    return -(first // units_in), last // units_in


def seanet_padding(config: Any) -> Callable[[Convolution], int]:
    """Left padding of EnCodec's and Mimi's convolutions, for `reach`."""

    def padding(conv: Convolution) -> int:
        excess = (conv.kernel_size[0] - 1) * conv.dilation[0] + 1 - conv.stride[0]
        if not config.use_causal_conv:
            return excess - excess // 2
        transposed = isinstance(conv, nn.ConvTranspose1d)
        return excess - math.ceil(excess * config.trim_right_ratio) if transposed else excess

    return padding


def mirrored(context: tuple[int, int], config: Any) -> tuple[int, int]:
    """The context with reflection padding: near an end, outputs depend on inputs as far on the other side."""
    return (max(context), max(context)) if config.pad_mode == "reflect" else context
