"""Encoders from audio to hidden frames."""

from .genae import GenAEEncoder, GenAEEncoderConfig, MelFusion
from .oobleck import OobleckEncoder, OobleckEncoderConfig

__all__ = ["GenAEEncoder", "GenAEEncoderConfig", "MelFusion", "OobleckEncoder", "OobleckEncoderConfig"]
