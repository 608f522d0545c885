"""Recipes: functions that return the complete config of a run.

A recipe of this package is a function in one of its modules, listed in `catalog`.
"""

from .catalog import CODEC_RECIPES, RECIPES, load_run, recipe, recipe_names
from .f3 import f3_48khz, f3_base, f3_small, f3_tiny
from .genae import genae_36hz, genae_base, genae_small, genae_tiny
from .generation import generation_base, generation_small, generation_tiny
from .music2latent2 import codicodec_base, codicodec_tiny, music2latent2_base, music2latent2_small, music2latent2_tiny
from .oobleck import oobleck_base, oobleck_tiny
from .pocket import f3_pocket, music2latent2_pocket, music_pocket, speech_pocket, speech_pocket_vq
from .quantization import vq_base, vq_pocket, vq_tiny
from .representation import representation_base, representation_small, representation_tiny

__all__ = [
    "CODEC_RECIPES",
    "RECIPES",
    "codicodec_base",
    "codicodec_tiny",
    "f3_48khz",
    "f3_base",
    "f3_pocket",
    "f3_small",
    "f3_tiny",
    "genae_36hz",
    "genae_base",
    "genae_small",
    "genae_tiny",
    "generation_base",
    "generation_small",
    "generation_tiny",
    "load_run",
    "music2latent2_base",
    "music2latent2_pocket",
    "music2latent2_small",
    "music2latent2_tiny",
    "music_pocket",
    "oobleck_base",
    "oobleck_tiny",
    "recipe",
    "recipe_names",
    "representation_base",
    "representation_small",
    "representation_tiny",
    "speech_pocket",
    "speech_pocket_vq",
    "vq_base",
    "vq_pocket",
    "vq_tiny",
]
