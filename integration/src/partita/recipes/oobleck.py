"""Recipes for the baseline: the Oobleck autoencoder of Stable Audio Open (arXiv 2407.14358).

The networks are the published ones. They are trained like GenAE, so that the two differ only in their networks.
"""

from dataclasses import replace

from partita_bottlenecks import VAEConfig
from partita_core import AudioSpec, AutoencoderConfig, ChannelLayout
from partita_decoders import OobleckDecoderConfig
from partita_encoders import OobleckEncoderConfig

from partita.training import RunConfig

from .genae import genae_base, genae_tiny

# The networks have no layout input, so they support one layout.
_AUDIO = AudioSpec(44_100, 2, (ChannelLayout.STEREO,))


def oobleck_base() -> RunConfig:
    """Stable Audio Open's autoencoder: 44.1 kHz stereo, 2048x, 21.53 Hz, 64 channels, 78 M + 78 M parameters.

    Objective, data and trainer are those of `genae_base`.
    """
    model = AutoencoderConfig(_AUDIO, 64, OobleckEncoderConfig(), VAEConfig(), OobleckDecoderConfig())
    return replace(genae_base(), model=model)


def oobleck_tiny() -> RunConfig:
    """Oobleck with an eighth of the widths, 2.6 M parameters: the baseline for `genae_tiny`.

    Objective, data and trainer are those of `genae_tiny`.
    """
    channels = (16, 16, 32, 64, 128, 256)
    encoder, decoder = OobleckEncoderConfig(channels=channels), OobleckDecoderConfig(channels=channels[::-1])
    return replace(genae_tiny(), model=AutoencoderConfig(_AUDIO, 64, encoder, VAEConfig(), decoder))
