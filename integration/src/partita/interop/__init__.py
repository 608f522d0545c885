"""Codecs of other libraries as ours: AutoencoderOobleck of diffusers, DAC, EnCodec and Mimi of transformers."""

from .dac import DacCodec
from .encodec import ChunkedEncodecCodec, EncodecCodec
from .loading import from_foreign
from .mimi import MimiCodec
from .native import oobleck_from_diffusers
from .oobleck import OobleckCodec

__all__ = [
    "ChunkedEncodecCodec",
    "DacCodec",
    "EncodecCodec",
    "MimiCodec",
    "OobleckCodec",
    "from_foreign",
    "oobleck_from_diffusers",
]
