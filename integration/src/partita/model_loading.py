"""Models by name: a model folder, a checkpoint of a run, a pretrained model, or a repository on the hub."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partita_core import (
    Codec,
    Config,
    PartitaError,
    Quantizer,
    Saved,
    attach_quantizer,
    from_dict,
    load_weights,
    read_json,
    read_tensors,
    short_repr,
    suggest,
)
from partita_core.files import read_shapes
from partita_core.loading import build_for, check_folder
from partita_representation import RepresentationModel
from torch import Tensor, nn

HF_PREFIX = "hf:"
"""Prefix of names of diffusers' and transformers' models; see `partita.interop`."""

# Names that are neither paths nor repositories, which contain a slash.
_BARE = re.compile(r"\w[\w.-]*")


def pretrained_names() -> tuple[str, ...]:
    """Names of the models of the package `partita-pretrained`; none if it is not installed."""
    try:
        import partita_pretrained
    except ImportError:
        return ()
    return partita_pretrained.names()


def model_folder(name: str | Path) -> str | Path:
    """Return the folder of a pretrained model; paths, and names of repositories, are returned as they are.

    Args:
        name: a name for `load_model`. A file or folder comes before a pretrained model of the same name.

    Raises:
        PartitaError: it is neither a path nor `USER/REPOSITORY`, and there is no pretrained model of that name.
    """
    if os.path.exists(name) or not _BARE.fullmatch(str(name)):
        return name
    known = pretrained_names()
    if str(name) in known:
        import partita_pretrained

        return partita_pretrained.folder(str(name))
    hint = suggest(str(name), known) if known else "those are in the package partita-pretrained, which is not installed"
    raise PartitaError(f"no model folder {short_repr(name)}, and no pretrained model of that name; {hint}")


def load_model(name: str | Path) -> Any:
    """Load a model of any kind by name, in eval mode.

    Args:
        name: a model folder, `RUN/checkpoints/step_...` of a run (with its averaged weights), a model of the package
            `partita-pretrained`, or a repository on the hub; with the prefix `hf:`, a folder or repository of diffusers
            or transformers. A folder comes before a pretrained model of the same name.

    Raises:
        PartitaError: the model does not exist or is damaged; see `Saved.from_pretrained` and `from_huggingface`.
    """
    if str(name).startswith(HF_PREFIX):
        from .interop import from_huggingface  # slow to import, and needed for these names only

        return from_huggingface(str(name).removeprefix(HF_PREFIX))
    name = model_folder(name)
    if (Path(name) / "objective.safetensors").is_file():
        return _load_checkpoint(Path(name))
    return Saved.from_pretrained(name)


def load_codec(name: str | Path) -> Codec:
    """Load a codec by name; see `load_model`.

    Raises:
        PartitaError: the model does not exist, or is not a codec.
    """
    model = load_model(name)
    if not isinstance(model, Codec):
        raise PartitaError(f"{name} holds a {type(model).__name__}, which is not a codec")
    return model


def load_representation(name: str | Path) -> RepresentationModel:
    """Load a representation model by name; see `load_model`.

    Raises:
        PartitaError: the model does not exist, or is not a representation model.
    """
    model = load_model(name)
    if not isinstance(model, RepresentationModel):
        kind = type(model).__name__
        raise PartitaError(f"{name} holds a {kind}, which is not a representation model; train one on it")
    return model


def codec_of(model: Any) -> Codec:
    """Return the codec that a model is built on; a codec itself is returned as it is."""
    return model if isinstance(model, Codec) else model.codec


def build_model(config: Config, base: Any) -> Any:
    """Build the model of a run: an autoencoder if `base` is None, else a model on the latents of `base`.

    Args:
        config: config of the model; one that `needs_codec` is built on `base`, a quantizer by the width of its latents.
        base: codec or representation model; None for an autoencoder.
    """
    if base is None:
        return config.build()
    return config.build(codec=base) if config.needs_codec else config.build(dim=base.latent_spec.dim)


def _load_checkpoint(path: Path) -> Any:
    """Load the model of a training checkpoint, with the averaged weights if the run keeps them.

    Raises:
        PartitaError: the checkpoint is damaged, or belongs to another model.
    """
    check_folder(path, ["objective.safetensors", "ema.safetensors"], path)
    config, codec = _trained_model(path.resolve().parent.parent / "config.json")
    base = None if codec is None else load_model(codec)
    shapes = _of_model(read_shapes(path / "objective.safetensors"))
    model = build_for(shapes, config, lambda: build_model(config, base), path, kind=nn.Module)
    weights = _of_model(read_tensors(path / "objective.safetensors")[0])
    if (path / "ema.safetensors").exists():
        weights |= read_tensors(path / "ema.safetensors")[0]
    load_weights(model, weights, path)
    model.eval()
    if isinstance(model, Quantizer):
        assert base is not None
        return attach_quantizer(base, model).eval()
    return model


def _trained_model(path: Path) -> tuple[Config, str | None]:
    """Config of a run's model, and the folder of the codec that it is trained on, if any."""
    saved = read_json(path)
    run = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(run, dict) or "model" not in run:
        raise PartitaError(f"{path} is not the config of a run; it has no config.model")
    codec = run.get("codec")
    if not isinstance(codec, str | None):
        raise PartitaError(f"{path}: config.codec is {short_repr(codec)}; it must be a folder or null")
    return from_dict(Config, run["model"], where=f"{path}: config.model"), codec


def _of_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
