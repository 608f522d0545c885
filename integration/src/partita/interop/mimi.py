"""Adapter of transformers' MimiModel, the codec of Moshi (arXiv 2410.00037)."""

import math
from functools import reduce
from typing import Any

import torch
from partita_core import LatentSpec, PartitaError
from torch import Tensor, nn

from ._common import ExternalCodec, audio_spec, drop_levels, look_up, mirrored, reach, seanet_padding


class MimiCodec(ExternalCodec):
    """Adapter of `MimiModel`, causal; `values` are the quantized latents before upsampling and the decoder.

    Its transformers attend to a sliding window, so its context is bounded but long: 80 s for the published model.

    Args:
        model: transformers' `MimiModel`.

    Attributes:
        quantizer: split residual quantizer; the first levels are the semantic ones.

    Raises:
        PartitaError: the model is of transformers before 5.23, or lacks its encoder or decoder.
    """

    quantizer: nn.Module
    tile_seconds = 120.0  # shorter tiles would spend most of their time on the long context

    def __init__(self, model: Any) -> None:
        super().__init__()
        config = model.config
        self.encoder, self.quantizer, self.decoder = model.encoder, model.quantizer, model.decoder
        if not (hasattr(self.encoder, "encoder_seanet") and hasattr(self.decoder, "decoder_seanet")):
            raise PartitaError(
                "this MimiModel has no encoder or decoder model; both are needed, and transformers>=5.23"
            )
        encoder: Any = self.encoder
        rate, hop = config.sampling_rate, math.prod(config.upsampling_ratios) * encoder.downsample.conv.stride[0]
        sizes = (config.codebook_size,) * config.num_quantizers
        self.audio_spec = audio_spec(rate, config.audio_channels)
        self.latent_spec = LatentSpec(config.hidden_size, rate, hop, codebook_sizes=sizes)
        self.encode_context = _encode_context(self.encoder, config, hop)
        self.decode_context = _decode_context(self.decoder, config, hop)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """Encode to codes and their values; see `Codec`."""
        self._forget_codebooks()
        quantizer: Any = self.quantizer
        codes = quantizer.encode(self.encoder(audio, use_streaming=False).latents).transpose(0, 1)
        codes = drop_levels(codes, num_quantizers)
        return self._look_up(codes), codes

    def _look_up(self, codes: Tensor) -> Tensor:
        self._forget_codebooks()
        quantizer: Any = self.quantizer
        split = quantizer.num_semantic_quantizers
        semantic, acoustic = quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer
        return _values(semantic, codes[:, :split]) + _values(acoustic, codes[:, split:])

    def synthesize(self, values: Tensor) -> Tensor:
        """Decode values to audio; see `ExternalCodec`."""
        return self.decoder(values).audio_values

    def _forget_codebooks(self) -> None:
        """Clear the cached codebooks, which would be stale after loading, moving or casting weights."""
        for module in self.quantizer.modules():
            if hasattr(module, "_embed"):
                object.__setattr__(module, "_embed", None)


def _values(quantizer: Any, codes: Tensor) -> Tensor:
    levels = zip(quantizer.layers, codes.unbind(1))
    values = reduce(torch.add, (look_up(level.codebook.embed, row) for level, row in levels))
    return values if quantizer.output_proj is None else quantizer.output_proj(values)


def _encode_context(encoder: Any, config: Any, hop: int) -> tuple[int, int]:
    padding = seanet_padding(config)
    first, last = reach(encoder.downsample, 0, 0, padding)
    first, last = reach(encoder.encoder_seanet, first - _attended(config), last, padding)
    return mirrored((-(first // hop), last // hop), config)


def _decode_context(decoder: Any, config: Any, hop: int) -> tuple[int, int]:
    padding = seanet_padding(config)
    first, last = reach(decoder.decoder_seanet, 0, hop - 1, padding)
    first, last = reach(decoder.upsample, first - _attended(config), last, padding)
    return mirrored((-first, last), config)


def _attended(config: Any) -> int:
    return config.num_hidden_layers * (config.sliding_window - 1)
