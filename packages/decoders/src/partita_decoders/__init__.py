"""Decoders from latents to audio, and samplers for denoising decoders."""

from .adaptive import AdaptiveDecoder, AdaptiveDecoderConfig
from .consistency import ConsistencyDecoder, ConsistencyDecoderConfig
from .frames import FrameDecoder, FrameDecoderConfig
from .genae import GenAEDecoder, GenAEDecoderConfig
from .linear import LinearDecoder, LinearDecoderConfig
from .linear_path import LinearPathDecoder, LinearPathDecoderConfig
from .oobleck import OobleckDecoder, OobleckDecoderConfig
from .samplers import Autoregressive, Independent, Overlap, Parallel, TwoStep
from .source_filter import SourceFilterDecoder, SourceFilterDecoderConfig
from .spectrostream import SpectroStreamDecoder, SpectroStreamDecoderConfig

__all__ = [
    "AdaptiveDecoder",
    "AdaptiveDecoderConfig",
    "Autoregressive",
    "ConsistencyDecoder",
    "ConsistencyDecoderConfig",
    "FrameDecoder",
    "FrameDecoderConfig",
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
    "SourceFilterDecoder",
    "SourceFilterDecoderConfig",
    "SpectroStreamDecoder",
    "SpectroStreamDecoderConfig",
    "TwoStep",
]
