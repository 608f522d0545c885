"""Encoders from audio to hidden frames."""

from .genae import GenAEEncoder, GenAEEncoderConfig, MelFusion
from .oobleck import OobleckEncoder, OobleckEncoderConfig
from .summary import SummaryEncoder, SummaryEncoderConfig

__all__ = [
    "GenAEEncoder",
    "GenAEEncoderConfig",
    "MelFusion",
    "OobleckEncoder",
    "OobleckEncoderConfig",
    "SummaryEncoder",
    "SummaryEncoderConfig",
]
