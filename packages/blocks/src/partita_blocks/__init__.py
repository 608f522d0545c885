"""Layers for neural audio autoencoders: activations, convolutions, windowed attention, spectral transforms."""

from .activations import ACTIVATIONS, ELU, Snake, SnakeBeta, SnakeLite
from .attention import RMSNorm, TransformerBlock, WindowedTransformer, rotary_angles, rotate, windowed_attention
from .convolutions import (
    DownStage,
    ResidualUnit,
    UpStage,
    conv,
    conv_reach,
    conv_transpose_reach,
    down_stages,
    residual_units,
    up_stages,
)
from .spectral import STFT, LogMel, a_weighting, mel_filterbank, mirrored, overlap_add, power, reflect

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "STFT",
    "DownStage",
    "LogMel",
    "RMSNorm",
    "ResidualUnit",
    "Snake",
    "SnakeBeta",
    "SnakeLite",
    "TransformerBlock",
    "UpStage",
    "WindowedTransformer",
    "a_weighting",
    "conv",
    "conv_reach",
    "conv_transpose_reach",
    "down_stages",
    "mel_filterbank",
    "mirrored",
    "overlap_add",
    "power",
    "reflect",
    "residual_units",
    "rotary_angles",
    "rotate",
    "up_stages",
    "windowed_attention",
]
