"""Recipes by name: those of this package, those that other packages announce, and saved configs.

A package announces a recipe by an entry point of the group `partita.recipes`, or `partita.codec_recipes` for models on
the latents of a codec: the name is that of the recipe, the value a function that returns a `RunConfig`.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from partita_core import PartitaError, first_line, suggest

from partita.training import RunConfig
from partita.training.run import read_run_config

from .f3 import f3_48khz, f3_base, f3_small, f3_tiny
from .genae import genae_36hz, genae_base, genae_small, genae_tiny
from .generation import generation_base, generation_small, generation_tiny
from .music2latent2 import codicodec_base, codicodec_tiny, music2latent2_base, music2latent2_small, music2latent2_tiny
from .oobleck import oobleck_base, oobleck_tiny
from .pocket import f3_pocket, music2latent2_pocket, music_pocket, speech_pocket, speech_pocket_vq
from .quantization import vq_base, vq_pocket, vq_tiny
from .representation import representation_base, representation_small, representation_tiny

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        codicodec_base,
        codicodec_tiny,
        f3_48khz,
        f3_base,
        f3_pocket,
        f3_small,
        f3_tiny,
        genae_36hz,
        genae_base,
        genae_small,
        genae_tiny,
        music2latent2_base,
        music2latent2_pocket,
        music2latent2_small,
        music2latent2_tiny,
        oobleck_base,
        oobleck_tiny,
        music_pocket,
        speech_pocket,
        speech_pocket_vq,
    )
}
"""Recipes of this package for autoencoders."""

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
        vq_pocket,
        vq_tiny,
    )
}
"""Recipes of this package for models on the latents of a codec, whose name is their first argument."""


def recipe_names(*, on_codec: bool = False) -> list[str]:
    """Names of the installed recipes for autoencoders, or for models on a codec."""
    own, group = _kind(on_codec)
    return sorted({*own, *entry_points(group=group).names})


def recipe(name: str, codec: str | None = None, **settings: Any) -> RunConfig:
    """Config of the recipe called `name`.

    Args:
        name: name of an installed recipe.
        codec: name of the codec that the model is built on; None for an autoencoder.
        **settings: further arguments of the recipe.

    Raises:
        PartitaError: there is no such recipe (the nearest names are given), or one of another package fails.
    """
    own, group = _kind(codec is not None)
    arguments = () if codec is None else (codec,)
    if name in own:
        return own[name](*arguments, **settings)
    for entry_point in entry_points(group=group, name=name):
        try:
            config = entry_point.load()(*arguments, **settings)
        except PartitaError:
            raise
        except Exception as error:  # whatever the code of another package raises
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise PartitaError(f"the recipe {name!r} of {entry_point.value} fails with {reason}") from error
        if not isinstance(config, RunConfig):
            kind = type(config).__name__
            raise PartitaError(f"the recipe {name!r} of {entry_point.value} returns a {kind}, not a RunConfig")
        return config
    kind = "" if codec is None else " for the latents of a codec"
    raise PartitaError(f"unknown recipe {name!r}{kind}; {suggest(name, recipe_names(on_codec=codec is not None))}")


def load_run(name: str) -> tuple[RunConfig, str]:
    """Config of a run and the name of its recipe, by that name or from a `config.json` of a run.

    Args:
        name: name of a recipe for autoencoders, or a path that ends in `.json`.

    Raises:
        PartitaError: there is no such recipe, or the file is not the config of a run.
    """
    return read_run_config(name) if name.endswith(".json") else (recipe(name), name)


def _kind(on_codec: bool) -> tuple[dict[str, Callable[..., RunConfig]], str]:
    return (CODEC_RECIPES, "partita.codec_recipes") if on_codec else (RECIPES, "partita.recipes")
