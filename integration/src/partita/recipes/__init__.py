"""Recipes: functions that return a complete run. Add one as a function here, and it has a name on the command line."""

from collections.abc import Callable
from typing import Any

from partita_core import PartitaError, suggest

from partita.training import RunConfig

from .f3 import f3_48khz, f3_base, f3_small, f3_tiny
from .genae import genae_36hz, genae_base, genae_small, genae_tiny
from .generation import generation_base, generation_small, generation_tiny
from .music2latent2 import codicodec_base, codicodec_tiny, music2latent2_base, music2latent2_small, music2latent2_tiny
from .oobleck import oobleck_base, oobleck_tiny
from .quantization import vq_base, vq_tiny
from .representation import representation_base, representation_small, representation_tiny

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        codicodec_base,
        codicodec_tiny,
        f3_48khz,
        f3_base,
        f3_small,
        f3_tiny,
        genae_36hz,
        genae_base,
        genae_small,
        genae_tiny,
        music2latent2_base,
        music2latent2_small,
        music2latent2_tiny,
        oobleck_base,
        oobleck_tiny,
    )
}


CODEC_RECIPES: dict[str, Callable[..., RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        generation_base,
        generation_small,
        generation_tiny,
        representation_base,
        representation_small,
        representation_tiny,
        vq_base,
        vq_tiny,
    )
}
"""Recipes for what is trained on the latents of a codec; they take its name."""


def recipe(name: str, codec: str | None = None, **settings: Any) -> RunConfig:
    """The run that is called `name`, on the latents of `codec` if one is given, which may take further settings.

    Raises:
        PartitaError: no recipe of that kind is called so; the nearest names are given.
    """
    known = RECIPES if codec is None else CODEC_RECIPES
    if name not in known:
        kind = "" if codec is None else " for the latents of a codec"
        raise PartitaError(f"unknown recipe {name!r}{kind}; {suggest(name, known)}")
    return RECIPES[name]() if codec is None else CODEC_RECIPES[name](codec, **settings)


__all__ = [
    "CODEC_RECIPES",
    "RECIPES",
    "codicodec_base",
    "codicodec_tiny",
    "f3_48khz",
    "f3_base",
    "f3_small",
    "f3_tiny",
    "genae_36hz",
    "genae_base",
    "genae_small",
    "genae_tiny",
    "generation_base",
    "generation_small",
    "generation_tiny",
    "music2latent2_base",
    "music2latent2_small",
    "music2latent2_tiny",
    "oobleck_base",
    "oobleck_tiny",
    "recipe",
    "representation_base",
    "representation_small",
    "representation_tiny",
    "vq_base",
    "vq_tiny",
]
