"""Models by name: a model folder, a checkpoint of a run, or a repository on the hub."""

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partita_core import Codec, Config, PartitaError, Quantizer, Saved, build_for, check_folder
from torch import nn

from .quantized import attach_quantizer

if TYPE_CHECKING:
    from .representation import RepresentationModel

FOREIGN = "hf:"
"""What a name begins with where the model is one of diffusers or transformers; see `partita.interop`."""


def load_model(name: str | Path) -> Any:
    """The model that is called `name`, of whatever kind, in eval mode.

    Args:
        name: a model folder, `RUN/checkpoints/step_...` of a run (with its averaged weights), or a repository on
            the hub; behind `hf:`, a folder or repository of diffusers' or transformers'.

    Raises:
        PartitaError: there is none; see `Saved.from_pretrained` and `from_foreign`.
    """
    if str(name).startswith(FOREIGN):
        from .interop import from_foreign

        return from_foreign(str(name).removeprefix(FOREIGN))
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


def load_representation(name: str | Path) -> "RepresentationModel":
    """The representation model that is called `name`; see `load_model`.

    Raises:
        PartitaError: there is none, or it is another kind of model.
    """
    from .representation import RepresentationModel

    model = load_model(name)
    if not isinstance(model, RepresentationModel):
        raise PartitaError(f"{name} holds a {type(model).__name__}, which makes no features; train one on it")
    return model


def codec_of(model: Any) -> Codec:
    """The codec itself, or the one that another model is on top of."""
    return model if isinstance(model, Codec) else model.codec


def build_model(config: Config, base: Any) -> Any:
    """What a run trains: a model of its own, or on `base`, a codec or what else it is built on.

    A quantizer takes the width of the latents, other models the `codec`.
    """
    if base is None:
        return config.build()
    takes_codec = "codec" in signature(config.build).parameters
    return config.build(codec=base) if takes_codec else config.build(dim=base.latent_spec.dim)


def _load_checkpoint(path: Path) -> Any:
    from partita.training.checkpoints import load_model as load_weights
    from partita.training.checkpoints import model_shapes
    from partita.training.run import RunFolder

    check_folder(path, ["objective.safetensors", "ema.safetensors"], path)
    config = RunFolder(path.resolve().parent.parent).read_config()
    base = None if config.codec is None else load_model(config.codec)
    model = build_for(model_shapes(path), config.model, lambda: build_model(config.model, base), path, kind=nn.Module)
    load_weights(path, model)
    if isinstance(model, Quantizer):
        assert base is not None
        return attach_quantizer(base, model).eval()
    return model
