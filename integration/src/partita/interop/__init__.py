"""Adapters of other libraries' codecs: AutoencoderOobleck of diffusers, DAC, EnCodec and Mimi of transformers."""

from .dac import DacCodec
from .encodec import ChunkedEncodecCodec, EncodecCodec
from .loading import from_huggingface
from .mimi import MimiCodec
from .native import oobleck_from_diffusers
from .oobleck import OobleckCodec
from .transformers_codecs import TransformersCodecConfig

__all__ = [
    "ChunkedEncodecCodec",
    "DacCodec",
    "EncodecCodec",
    "MimiCodec",
    "OobleckCodec",
    "TransformersCodecConfig",
    "from_huggingface",
    "oobleck_from_diffusers",
]
