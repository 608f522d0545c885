"""Encoders from audio to the hidden frames of an autoencoder."""

from .genae import GenAEEncoder, GenAEEncoderConfig, MelFusion
from .oobleck import OobleckEncoder, OobleckEncoderConfig
from .spectrostream import SpectroStreamEncoder, SpectroStreamEncoderConfig
from .summary import SummaryEncoder, SummaryEncoderConfig

__all__ = [
    "GenAEEncoder",
    "GenAEEncoderConfig",
    "MelFusion",
    "OobleckEncoder",
    "OobleckEncoderConfig",
    "SpectroStreamEncoder",
    "SpectroStreamEncoderConfig",
    "SummaryEncoder",
    "SummaryEncoderConfig",
]
