"""A codec without parts, and an autoencoder."""

from typing import Any

import torch
from partita_core.autoencoder import Autoencoder, AutoencoderConfig
from partita_core.codec import Codec
from partita_core.layouts import ChannelLayout
from partita_core.registry import Config
from partita_core.specs import AudioSpec, LatentSpec
from torch import Tensor, nn

from .bottlenecks import NoisyConfig, RoundingConfig, RoundingQuantizer
from .decoders import TransposedConfig
from .encoders import StridedConfig


class BlockCodec(Codec):
    """A mono codec without parts: each frame is rotated and rounded to codes, without context."""

    encode_context = decode_context = (0, 0)

    def __init__(self, quantizer: RoundingQuantizer) -> None:
        super().__init__()
        self.audio_spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
        self.latent_spec = LatentSpec(8, 8000, 8, codebook_sizes=quantizer.codebook_sizes)
        self.quantizer = quantizer
        self.rotation = nn.Parameter(torch.linalg.qr(torch.randn(8, 8))[0])

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """See `Codec`."""
        hidden = (audio.unflatten(-1, (-1, 8))[:, 0] @ self.rotation).transpose(1, 2)
        codes = self.quantizer.encode_codes(4 * hidden, num_quantizers)
        return self.quantizer.codes_to_values(codes), codes

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """See `Codec`."""
        if values is None:
            assert codes is not None
            values = self.codes_to_values(codes)
        return (values.transpose(1, 2) @ self.rotation.T).flatten(1)[:, None] + 1e-3

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """See `Codec`."""
        return self.quantizer.codes_to_values(codes)


def blocks(seed: int = 0) -> BlockCodec:
    """Build a `BlockCodec` in eval mode, equal for equal seeds."""
    torch.manual_seed(seed)
    return BlockCodec(RoundingConfig().build(dim=8)).eval()


def autoencoder(
    *layouts: ChannelLayout,
    encoder: Config | None = None,
    bottleneck: Config | None = None,
    decoder: Config | None = None,
    quantizer: Config | None = None,
    seed: int = 0,
) -> Autoencoder:
    """Build an autoencoder of dummies in eval mode, for all layouts by default, equal for equal seeds."""
    layouts = layouts or tuple(ChannelLayout)
    config = AutoencoderConfig(
        audio=AudioSpec(8000, 1 if layouts == (ChannelLayout.MONO,) else 2, layouts),
        latent_dim=4,
        encoder=encoder or StridedConfig(),
        bottleneck=bottleneck or NoisyConfig(),
        decoder=decoder or TransposedConfig(),
        quantizer=quantizer,
    )
    torch.manual_seed(seed)
    return config.build().eval()
