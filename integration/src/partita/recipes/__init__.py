"""Recipes: functions that return a complete run. Add one as a function here, and it has a name on the command line."""

from collections.abc import Callable

from partita_core import PartitaError, nearest

from partita.training import RunConfig

from .genae import genae_36hz, genae_base, genae_small, genae_tiny
from .music2latent2 import codicodec_tiny, music2latent2_base, music2latent2_small, music2latent2_tiny
from .oobleck import oobleck_base, oobleck_tiny
from .quantization import vq_base, vq_tiny

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        codicodec_tiny,
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


CODEC_RECIPES: dict[str, Callable[[str], RunConfig]] = {recipe.__name__: recipe for recipe in (vq_base, vq_tiny)}
"""Recipes for what is trained on the latents of a codec; they take its name."""


def recipe(name: str, codec: str | None = None) -> RunConfig:
    """The run that is called `name`, on the latents of `codec` if one is given.

    Raises:
        PartitaError: no recipe of that kind is called so; the nearest names are given.
    """
    known = RECIPES if codec is None else CODEC_RECIPES
    if name not in known:
        kind = "" if codec is None else " for the latents of a codec"
        raise PartitaError(f"unknown recipe {name!r}{kind}; {nearest(name, known)}")
    return RECIPES[name]() if codec is None else CODEC_RECIPES[name](codec)


__all__ = [
    "CODEC_RECIPES",
    "RECIPES",
    "codicodec_tiny",
    "genae_36hz",
    "genae_base",
    "genae_small",
    "genae_tiny",
    "music2latent2_base",
    "music2latent2_small",
    "music2latent2_tiny",
    "oobleck_base",
    "oobleck_tiny",
    "recipe",
    "vq_base",
    "vq_tiny",
]
