"""Encoders from audio to hidden frames."""

from .genae import GenAEEncoder, GenAEEncoderConfig, MelFusion

__all__ = ["GenAEEncoder", "GenAEEncoderConfig", "MelFusion"]
