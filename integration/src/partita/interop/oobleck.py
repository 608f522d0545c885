"""Adapter of diffusers' AutoencoderOobleck, the autoencoder of Stable Audio Open (arXiv 2407.14358)."""

import warnings
from dataclasses import dataclass
from typing import Any, Self

import torch
from partita_core import Config, LatentSpec, PartitaError, register
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from ._common import ExternalCodec, audio_spec, frame_context


@register("codec/oobleck")
@dataclass(frozen=True)
class OobleckCodecConfig(Config):
    """An AutoencoderOobleck by its original settings, so that models built on it can be saved.

    Attributes:
        settings: settings of diffusers' class, as in its `config.json`.
    """

    settings: dict[str, Any]

    def build(self) -> "OobleckCodec":
        """Build the codec with untrained weights."""
        try:
            from diffusers import AutoencoderOobleck
        except ImportError:
            raise PartitaError("AutoencoderOobleck needs diffusers: `pip install 'partita[interop]'`") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers uses torch's deprecated weight norm
            return OobleckCodec(AutoencoderOobleck(**self.settings))

    @classmethod
    def example(cls) -> Self:
        """A tiny instance of hop 24 with four latent channels."""
        sizes = {"encoder_hidden_size": 8, "decoder_channels": 4, "decoder_input_channels": 4}
        return cls(sizes | {"channel_multiples": [1, 2], "downsampling_ratios": [4, 6], "sampling_rate": 8000})


class OobleckCodec(ExternalCodec):
    """Adapter of `AutoencoderOobleck`; `values` are the posterior's mean, not normalized (see `measure_latents`).

    Args:
        model: diffusers' `AutoencoderOobleck`.

    Raises:
        PartitaError: the encoder does not have a mean and a scale per latent channel.
    """

    tile_seconds = 6.0  # a second takes 0.3 GB, because layers near the audio sample rate are wide

    def __init__(self, model: Any) -> None:
        super().__init__()
        config = model.config
        self.config = OobleckCodecConfig({key: config[key] for key in config if not key.startswith("_")})
        width, dim = config.encoder_hidden_size, config.decoder_input_channels
        if width != 2 * dim:
            raise PartitaError(f"the encoder has {width} output channels; {dim} latent channels need {2 * dim}")
        self.encoder, self.decoder = model.encoder, model.decoder
        self.audio_spec = audio_spec(config.sampling_rate, config.audio_channels)
        self.latent_spec = LatentSpec(dim, config.sampling_rate, model.hop_length)
        self.encode_context = frame_context(self.encoder, model.hop_length, 1)
        self.decode_context = frame_context(self.decoder, 1, model.hop_length)
        _forget_graphs(model)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, None]:
        """Encode to the posterior's mean; see `Codec`."""
        return self.encoder(audio).chunk(2, dim=1)[0], None

    def synthesize(self, values: Tensor) -> Tensor:
        """Decode values to audio; see `ExternalCodec`."""
        return self.decoder(values)


@torch.no_grad()
def _forget_graphs(model: nn.Module) -> None:
    """Recompute normed weights without gradients: initially they carry a graph, which cannot be deep-copied."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                hook(module, None)
