"""Finding, loading and wrapping a model of another library."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from partita_core import Codec, PartitaError, check_finite, first_line, read_json, suggest
from partita_core.loading import limited_build

from ._common import ExternalCodec
from .oobleck import OobleckCodec
from .transformers_codecs import MODELS, wrap_transformers

# Tensors of a large model, and bytes of its largest; `limited_build` allows several times as many.
_MAX_TENSORS, _MAX_BYTES = 300, 1 << 31

# By what config.json calls it (diffusers' _class_name, transformers' model_type): the library and its class.
_MODELS = {"AutoencoderOobleck": ("diffusers", "AutoencoderOobleck")}
_MODELS |= {kind: ("transformers", cls) for kind, cls in MODELS.items()}


def from_huggingface(model: Any) -> Codec:
    """A codec of diffusers or transformers as one of ours, in eval mode.

    Args:
        model: an `AutoencoderOobleck`, `DacModel`, `EncodecModel` or `MimiModel`, whose networks are then shared and
            put in eval mode; or the name of one: a folder, or `owner/name` on the hub, either followed by `/folder`
            where the model is a part of a pipeline. Loaded by name it is float32, on the CPU.

    Raises:
        PartitaError: there is no such model, or its library is not installed.
    """
    return wrap(_load(str(model)) if isinstance(model, str | Path) else model).eval()


def wrap(model: Any) -> ExternalCodec:
    """A loaded or built model as one of ours; see `from_huggingface`.

    Raises:
        PartitaError: it is no codec that is known here.
    """
    if "AutoencoderOobleck" in {cls.__name__ for cls in type(model).__mro__}:
        return OobleckCodec(model)
    codec = wrap_transformers(model)
    if codec is not None:
        return codec
    known = ", ".join(name for _, name in _MODELS.values())
    raise PartitaError(f"a {type(model).__name__} is no codec that is known here; known are {known}")


def is_codec(name: str) -> bool:
    """Whether the model that is called `name` is one that `from_huggingface` takes.

    Raises:
        PartitaError: there is no such model.
    """
    return _tag(name) in _MODELS


def load_pretrained(loader: Any, name: str, cls: str) -> Any:
    """The model that is called `name`, as `from_huggingface` takes names, in float32 on the CPU.

    Args:
        loader: the class of diffusers or transformers that loads it.
        name: of the model.
        cls: what it is called in messages.

    Raises:
        PartitaError: it cannot be loaded from safetensors, or lacks weights, which would be left at random, or holds
            numbers that are not finite.
    """
    repository, subfolder = repository_of(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers builds with torch's former weight norm
            safe = {"use_safetensors": True, "trust_remote_code": False}
            model, found = loader.from_pretrained(repository, subfolder=subfolder, output_loading_info=True, **safe)
    except Exception as error:  # their exceptions are many; what counts is that the model could not be had
        raise PartitaError(f"{name} could not be loaded: {first_line(error)}") from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise PartitaError(f"{name} lacks {len(missing)} weights of a {cls}, first {missing[0]}")
    model = model.float()
    check_finite(model.state_dict(), name)
    return model


def _load(name: str) -> Any:
    tag = _tag(name)
    if tag not in _MODELS:
        raise PartitaError(f"{name} is a {tag or 'model without a type'}; {suggest(str(tag), _MODELS)}")
    library, cls = _MODELS[tag]
    try:
        loader = getattr(import_module(library), cls)
    except (ImportError, AttributeError):
        raise PartitaError(f"{name} is a {cls}: install what it needs with `pip install 'partita[interop]'`") from None
    _check_size(loader, name)
    return load_pretrained(loader, name, cls)


def _check_size(loader: Any, name: str) -> None:
    """Refuse a config of a model that would take the machine before its weights are looked at."""
    facts = read_json(_config_file(name, *repository_of(name)))
    with warnings.catch_warnings(), limited_build(name, max_tensors=_MAX_TENSORS, max_bytes=_MAX_BYTES):
        warnings.simplefilter("ignore", FutureWarning)  # as below
        if hasattr(loader, "from_config"):
            loader.from_config(facts)
        else:
            loader(loader.config_class.from_dict(facts))


def _tag(name: str) -> str | None:
    """What the model's `config.json` says that it is."""
    config = read_json(_config_file(name, *repository_of(name)))
    config = config if isinstance(config, dict) else {}
    tag = config.get("_class_name") or config.get("model_type")
    return tag if isinstance(tag, str) else None


def repository_of(name: str) -> tuple[str, str]:
    """The folder or repository that a name begins with, and the folder in it.

    Raises:
        PartitaError: it is no folder, and nothing on the hub can be called so.
    """
    if Path(name).is_dir():
        return name, ""
    owner, *rest = name.split("/")
    if not rest or not all((owner, *rest)) or owner in (".", "..", "~"):
        raise PartitaError(f"no model folder {name!r}, and no hub repository is called so")
    return f"{owner}/{rest[0]}", "/".join(rest[1:])


def _config_file(name: str, repository: str, subfolder: str) -> Path:
    if Path(name).is_dir():
        return Path(name) / "config.json"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "config.json", subfolder=subfolder or None))
    except Exception as error:  # likewise
        raise PartitaError(f"no model folder {name!r}, and the hub gave none: {first_line(error)}") from None
