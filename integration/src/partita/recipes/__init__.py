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


def recipe(name: str) -> RunConfig:
    """The run that is called `name`.

    Raises:
        PartitaError: none is; the nearest names are given.
    """
    if name not in RECIPES:
        raise PartitaError(f"unknown recipe {name!r}; {nearest(name, RECIPES)}")
    return RECIPES[name]()


QUANTIZATION_RECIPES: dict[str, Callable[[str], RunConfig]] = {recipe.__name__: recipe for recipe in (vq_base, vq_tiny)}


def quantization_recipe(name: str, codec: str) -> RunConfig:
    """The run that is called `name`, for a quantizer of the latents of `codec`.

    Raises:
        PartitaError: none is; the nearest names are given.
    """
    if name not in QUANTIZATION_RECIPES:
        raise PartitaError(f"unknown recipe {name!r} of a quantizer; {nearest(name, QUANTIZATION_RECIPES)}")
    return QUANTIZATION_RECIPES[name](codec)


__all__ = [
    "QUANTIZATION_RECIPES",
    "quantization_recipe",
    "vq_base",
    "vq_tiny",
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
]
