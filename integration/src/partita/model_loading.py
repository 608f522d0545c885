"""Models by name: a model folder, a checkpoint of a run, or a repository on the hub."""

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
    build_for,
    check_folder,
    from_dict,
    load_weights,
    read_json,
    read_shapes,
    read_tensors,
    shown,
)
from partita_representation import RepresentationModel
from torch import Tensor, nn

from .interop import from_huggingface

HF_PREFIX = "hf:"
"""What a name begins with where the model is one of diffusers or transformers; see `partita.interop`."""


def load_model(name: str | Path) -> Any:
    """The model that is called `name`, of whatever kind, in eval mode.

    Args:
        name: a model folder, `RUN/checkpoints/step_...` of a run (with its averaged weights), or a repository on
            the hub; behind `hf:`, a folder or repository of diffusers' or transformers'.

    Raises:
        PartitaError: there is none; see `Saved.from_pretrained` and `from_huggingface`.
    """
    if str(name).startswith(HF_PREFIX):
        return from_huggingface(str(name).removeprefix(HF_PREFIX))
    path = Path(name)
    if (path / "objective.safetensors").is_file():
        return _load_checkpoint(path)
    return Saved.from_pretrained(name)


def load_codec(name: str | Path) -> Codec:
    """The codec that is called `name`; see `load_model`.

    Raises:
        PartitaError: there is none, or it is another kind of model.
    """
    model = load_model(name)
    if not isinstance(model, Codec):
        raise PartitaError(f"{name} holds a {type(model).__name__}, which is no codec")
    return model


def load_representation(name: str | Path) -> RepresentationModel:
    """The representation model that is called `name`; see `load_model`.

    Raises:
        PartitaError: there is none, or it is another kind of model.
    """
    model = load_model(name)
    if not isinstance(model, RepresentationModel):
        raise PartitaError(f"{name} holds a {type(model).__name__}, which makes no features; train one on it")
    return model


def codec_of(model: Any) -> Codec:
    """The codec itself, or the one that another model is on top of."""
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
    """The model of a run's config, and the folder of the codec that it is trained on, if any."""
    saved = read_json(path)
    run = saved.get("config") if isinstance(saved, dict) else None
    if not isinstance(run, dict) or "model" not in run:
        raise PartitaError(f"{path} is not the config of a run; it has no config.model")
    codec = run.get("codec")
    if not isinstance(codec, str | None):
        raise PartitaError(f"{path}: config.codec is {shown(codec)}; a folder or null is needed")
    return from_dict(Config, run["model"], where=f"{path}: config.model"), codec


def _of_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
