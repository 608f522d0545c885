"""Construction of the objective of a run, with the model that is given or that of its config."""

from pathlib import Path
from typing import Any

import torch
from partita_core import Config, Frozen, PartitaError, Saved, hashed_seed, load_weights
from torch import nn

from partita.model_loading import build_model, load_model
from partita.objectives.objective import Objective

from .run import RunConfig


def build_objective(config: RunConfig, *, model: nn.Module | None, init_from: str | Path | None) -> Objective:
    """Build the objective of a run.

    Args:
        config: config of the run.
        model: model to train; None to build that of the config.
        init_from: name of the model to load initial weights from, as for `load_model`.

    Raises:
        PartitaError: model, objective and codec do not go together, or what is trained could not be saved.
    """
    _check_roles(config)
    codec = None if config.codec is None else load_model(config.codec)
    torch.manual_seed(hashed_seed(config.trainer.seed, "weights"))
    trained: nn.Module = build_model(config.model, codec) if model is None else model
    if model is not None and config.model.needs_codec and isinstance(model, Saved):
        codec = _own_codec(model, codec, str(config.codec))
    if init_from is not None:
        load_weights(trained, _initial_model(trained, init_from).state_dict(), init_from)
    objective = config.objective.build(model=trained, **({} if codec is None else {"codec": Frozen(codec)}))
    if isinstance(objective.result, Saved):
        objective.result.saved_config()  # raises before the training, not after it, if the result cannot be saved
    return objective


def config_of_model(model: nn.Module) -> Config:
    """Config that rebuilds a model that was assembled by hand.

    Raises:
        PartitaError: the model, or one of its parts, was not built from registered components.
    """
    if isinstance(model, Saved):
        return model.saved_config()[0]
    config = getattr(model, "config", None)
    if not isinstance(config, Config):
        kind = type(model).__name__
        raise PartitaError(f"{kind} has no registered Config and cannot be saved; register its class with @register")
    return config


def _check_roles(config: RunConfig) -> None:
    model, objective = config.model.tag, config.objective
    if model.split("/")[0] not in objective.model_roles:
        raise PartitaError(
            f"{objective.tag} trains a model of the role {' or '.join(objective.model_roles)}, not {model}"
        )
    if objective.needs_codec and config.codec is None:
        raise PartitaError(f"{objective.tag} trains {model} on a codec; add codec=FOLDER")
    if not objective.needs_codec and config.codec is not None:
        raise PartitaError(f"{objective.tag} trains {model} without a codec; remove codec={config.codec}")


def _own_codec(model: Saved, codec: Any, name: str) -> Any:
    """The codec that a given model was built on, which must be that of the config."""
    own = model.nested()["codec"]
    if Frozen(own).sha256 != Frozen(codec).sha256:
        raise PartitaError(f"the model was built on another codec than codec={name}; name the folder of that codec")
    return own


def _initial_model(trained: nn.Module, name: str | Path) -> nn.Module:
    """Load the model, or for a quantizer the quantizer of the model, whose weights are those to start from."""
    source = load_model(name)
    if not isinstance(trained, Saved):
        source = getattr(source, "quantizer", None)
        if not isinstance(source, nn.Module):
            raise PartitaError(f"{name} has no quantizer to start from; name a model with one")
    elif not isinstance(source, type(trained)):
        raise PartitaError(f"{name} is a {type(source).__name__}; a {type(trained).__name__} is expected")
    return source
