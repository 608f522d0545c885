"""Encoders from audio to hidden frames."""

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
