"""Decoders from latents to audio."""

from .genae import GenAEDecoder, GenAEDecoderConfig

__all__ = ["GenAEDecoder", "GenAEDecoderConfig"]
