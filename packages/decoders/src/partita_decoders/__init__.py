"""Decoders from latents to audio, and samplers for denoising decoders."""

from .consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from .genae import GenAEDecoder, GenAEDecoderConfig
from .linear import LinearDecoder, LinearDecoderConfig
from .linear_path import LinearPathDecoder, LinearPathDecoderConfig
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
    "LinearDecoder",
    "LinearDecoderConfig",
    "LinearPathDecoder",
    "LinearPathDecoderConfig",
    "OobleckDecoder",
    "OobleckDecoderConfig",
    "Overlap",
    "Parallel",
    "SpectroStreamDecoder",
    "SpectroStreamDecoderConfig",
    "TwoStep",
]
