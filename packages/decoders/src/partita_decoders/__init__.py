"""Decoders from latents to audio."""

from .genae import GenAEDecoder, GenAEDecoderConfig
from .oobleck import OobleckDecoder, OobleckDecoderConfig

__all__ = ["GenAEDecoder", "GenAEDecoderConfig", "OobleckDecoder", "OobleckDecoderConfig"]
