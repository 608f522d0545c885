"""Decoders from latents to audio, and samplers for denoising decoders."""

from .adaptive import AdaptiveDecoder, AdaptiveDecoderConfig
from .consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from .frames import FramesDecoder, FramesDecoderConfig
from .genae import GenAEDecoder, GenAEDecoderConfig
from .linear import LinearDecoder, LinearDecoderConfig
from .linear_path import LinearPathDecoder, LinearPathDecoderConfig
from .oobleck import OobleckDecoder, OobleckDecoderConfig
from .samplers import Autoregressive, Independent, Overlap, Parallel, TwoStep
from .spectrostream import SpectroStreamDecoder, SpectroStreamDecoderConfig

__all__ = [
    "AdaptiveDecoder",
    "AdaptiveDecoderConfig",
    "Autoregressive",
    "ConsistencyDecoder",
    "ConsistencyDecoderConfig",
    "FramesDecoder",
    "FramesDecoderConfig",
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
