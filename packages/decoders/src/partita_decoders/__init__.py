"""Decoders from latents to audio, and samplers for denoising decoders."""

from .consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from .genae import GenAEDecoder, GenAEDecoderConfig
from .oobleck import OobleckDecoder, OobleckDecoderConfig
from .samplers import Autoregressive, Independent, Overlap, Parallel, TwoStep
from .spectrostream import SpectroStreamDecoder, SpectroStreamDecoderConfig

__all__ = [
    "Autoregressive",
    "ConsistencyDecoder",
    "ConsistencyDecoderConfig",
    "GenAEDecoder",
    "GenAEDecoderConfig",
    "Independent",
    "OobleckDecoder",
    "OobleckDecoderConfig",
    "Overlap",
    "Parallel",
    "SpectroStreamDecoder",
    "SpectroStreamDecoderConfig",
    "TwoStep",
]
