"""Recipes: functions that return a complete run. Add one as a function here, and it has a name on the command line."""

from collections.abc import Callable

from partita_core import PartitaError, nearest

from partita.training import RunConfig

from .genae import genae_base, genae_tiny

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        genae_base,
        genae_tiny,
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


__all__ = ["RECIPES", "genae_base", "genae_tiny", "recipe"]
