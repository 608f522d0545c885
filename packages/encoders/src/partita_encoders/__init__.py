"""Encoders from audio to the hidden frames of an autoencoder."""

from .adaptive import AdaptiveEncoder, AdaptiveEncoderConfig
from .frames import FrameEncoder, FrameEncoderConfig
from .genae import GenAEEncoder, GenAEEncoderConfig, MelFusion
from .linear import LinearEncoder, LinearEncoderConfig
from .linear_path import LinearPathEncoder, LinearPathEncoderConfig
from .oobleck import OobleckEncoder, OobleckEncoderConfig
from .spectrostream import SpectroStreamEncoder, SpectroStreamEncoderConfig
from .summary import SummaryEncoder, SummaryEncoderConfig

__all__ = [
    "AdaptiveEncoder",
    "AdaptiveEncoderConfig",
    "FrameEncoder",
    "FrameEncoderConfig",
    "GenAEEncoder",
    "GenAEEncoderConfig",
    "LinearEncoder",
    "LinearEncoderConfig",
    "LinearPathEncoder",
    "LinearPathEncoderConfig",
    "MelFusion",
    "OobleckEncoder",
    "OobleckEncoderConfig",
    "SpectroStreamEncoder",
    "SpectroStreamEncoderConfig",
    "SummaryEncoder",
    "SummaryEncoderConfig",
]
