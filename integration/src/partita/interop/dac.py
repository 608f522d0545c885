"""Adapter of transformers' DacModel, the Descript Audio Codec (arXiv 2306.06546)."""

from functools import reduce
from typing import Any

import torch
from partita_core import LatentSpec
from torch import Tensor, nn

from ._common import ExternalCodec, audio_spec, drop_levels, frame_context, look_up


class DacCodec(ExternalCodec):
    """Adapter of `DacModel`, mono; `values` are the sum of the levels' projected codes, the decoder's input.

    Args:
        model: transformers' `DacModel`.

    Attributes:
        quantizer: residual quantizer.
    """

    tile_seconds = 6.0  # layers near the audio sample rate are wide

    quantizer: nn.Module

    def __init__(self, model: Any) -> None:

        super().__init__()
        config = model.config
        rate, hop = config.sampling_rate, config.hop_length
        self.encoder, self.quantizer, self.decoder = model.encoder, model.quantizer, model.decoder
        self.audio_spec = audio_spec(rate, 1)
        sizes = (config.codebook_size,) * config.n_codebooks
        self.latent_spec = LatentSpec(config.hidden_size, rate, hop, codebook_sizes=sizes)
        self.encode_context = frame_context(self.encoder, hop, 1)
        self.decode_context = frame_context(self.decoder, 1, hop)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """Encode to codes and their values; see `Codec`."""
        codes = drop_levels(self.quantizer(self.encoder(audio))[1], num_quantizers)
        return self._look_up(codes), codes

    def _look_up(self, codes: Tensor) -> Tensor:
        # The projections have a bias, so a dropped level must be masked after its projection.
        quantizer: Any = self.quantizer
        levels = zip(quantizer.quantizers, codes.unbind(1))
        values = (level.out_proj(look_up(level.codebook.weight, row)) * (row >= 0)[:, None] for level, row in levels)
        return reduce(torch.add, values)

    def synthesize(self, values: Tensor) -> Tensor:
        """Decode values to audio, with some samples fewer for odd strides; see `ExternalCodec`."""
        return self.decoder(values)
