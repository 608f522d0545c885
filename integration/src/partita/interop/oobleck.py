"""AutoencoderOobleck of diffusers: the autoencoder of Stable Audio Open (arXiv 2407.14358)."""

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
    """An AutoencoderOobleck by its own settings, so that a model that has one in it can be saved.

    Attributes:
        settings: of diffusers' class, as its `config.json` has them.
    """

    settings: dict[str, Any]

    def build(self) -> "OobleckCodec":
        """Builds it, with weights that nobody has trained."""
        try:
            from diffusers import AutoencoderOobleck
        except ImportError:
            raise PartitaError("AutoencoderOobleck is diffusers': `pip install 'partita[interop]'`") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it builds with torch's former weight norm
            return OobleckCodec(AutoencoderOobleck(**self.settings))

    @classmethod
    def example(cls) -> Self:
        """Hop 24, four channels."""
        sizes = {"encoder_hidden_size": 8, "decoder_channels": 4, "decoder_input_channels": 4}
        return cls(sizes | {"channel_multiples": [1, 2], "downsampling_ratios": [4, 6], "sampling_rate": 8000})


class OobleckCodec(ExternalCodec):
    """Continuous latents: `values` are the posterior's mean. Nothing scales them; `measure_latents` does."""

    tile_seconds = 6.0  # a second takes 0.3 GB, for layers near the rate of audio are wide

    def __init__(self, model: Any) -> None:
        """Wraps a diffusers `AutoencoderOobleck`.

        Raises:
            PartitaError: its encoder does not make a mean and a scale for each latent channel.
        """
        super().__init__()
        config = model.config
        self.config = OobleckCodecConfig({key: config[key] for key in config if not key.startswith("_")})
        width, dim = config.encoder_hidden_size, config.decoder_input_channels
        if width != 2 * dim:
            raise PartitaError(f"the encoder makes {width} channels; {dim} latent channels need {2 * dim}")
        self.encoder, self.decoder = model.encoder, model.decoder
        self.audio_spec = audio_spec(config.sampling_rate, config.audio_channels)
        self.latent_spec = LatentSpec(dim, config.sampling_rate, model.hop_length)
        self.encode_context = frame_context(self.encoder, model.hop_length, 1)
        self.decode_context = frame_context(self.decoder, 1, model.hop_length)
        _forget_graphs(model)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, None]:
        """The posterior's mean; see `Codec`."""
        return self.encoder(audio).chunk(2, dim=1)[0], None

    def synthesize(self, values: Tensor) -> Tensor:
        """See `ExternalCodec`."""
        return self.decoder(values)


@torch.no_grad()
def _forget_graphs(model: nn.Module) -> None:
    """Computes the normed weights anew: those of before the first call hold a graph, which cannot be deep-copied."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                hook(module, None)
