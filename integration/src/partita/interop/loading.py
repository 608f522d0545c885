"""Loading of codecs from diffusers and transformers, and their adapters."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from partita_core import Codec, PartitaError, check_finite, first_line, read_json, suggest
from partita_core.loading import limited_build

from ._common import ExternalCodec
from .oobleck import OobleckCodec
from .transformers_codecs import MODELS, wrap_transformers

# Number of tensors of a large model, and bytes of its largest tensor; `limited_build` allows several times as many.
_MAX_TENSORS, _MAX_BYTES = 300, 1 << 31

# Library and class by the name in config.json (diffusers' _class_name, transformers' model_type).
_MODELS = {"AutoencoderOobleck": ("diffusers", "AutoencoderOobleck")}
_MODELS |= {kind: ("transformers", cls) for kind, cls in MODELS.items()}


def from_huggingface(model: Any) -> Codec:
    """Adapt a codec of diffusers or transformers as a `Codec` in eval mode.

    Args:
        model: an `AutoencoderOobleck`, `DacModel`, `EncodecModel` or `MimiModel`, whose networks are shared and put in
            eval mode; or its name: a folder, or `owner/name` on the hub, followed by `/folder` if the model is part of
            a pipeline. Models loaded by name are float32, on the CPU.

    Raises:
        PartitaError: the model does not exist, or its library is not installed.
    """
    return wrap(_load(str(model)) if isinstance(model, str | Path) else model).eval()


def wrap(model: Any) -> ExternalCodec:
    """Adapt a loaded or built model; see `from_huggingface`.

    Raises:
        PartitaError: the model is not a supported codec.
    """
    if "AutoencoderOobleck" in {cls.__name__ for cls in type(model).__mro__}:
        return OobleckCodec(model)
    codec = wrap_transformers(model)
    if codec is not None:
        return codec
    supported = ", ".join(name for _, name in _MODELS.values())
    raise PartitaError(f"a {type(model).__name__} is not a supported codec; supported are {supported}")


def is_codec(name: str) -> bool:
    """Return True if `from_huggingface` supports the model with this name.

    Raises:
        PartitaError: the model does not exist.
    """
    return _tag(name) in _MODELS


def load_pretrained(loader: Any, name: str, cls: str) -> Any:
    """Load a model by name in float32 on the CPU.

    Args:
        loader: class of diffusers or transformers that loads it.
        name: name of the model, as for `from_huggingface`.
        cls: name of the class in messages.

    Raises:
        PartitaError: the model cannot be loaded from safetensors, lacks weights, which would stay random, or has
            weights that are not finite.
    """
    repository, subfolder = repository_of(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers uses torch's deprecated weight norm
            safe = {"use_safetensors": True, "trust_remote_code": False}
            model, found = loader.from_pretrained(repository, subfolder=subfolder, output_loading_info=True, **safe)
    except Exception as error:  # the libraries raise many kinds
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
        raise PartitaError(f"{name} is a {cls}, which needs {library}: `pip install 'partita[interop]'`") from None
    _check_size(loader, name)
    return load_pretrained(loader, name, cls)


def _check_size(loader: Any, name: str) -> None:
    """Check the config before the weights are loaded: an oversized model would exhaust memory."""
    facts = read_json(_config_file(name, *repository_of(name)))
    with warnings.catch_warnings(), limited_build(name, max_tensors=_MAX_TENSORS, max_bytes=_MAX_BYTES):
        warnings.simplefilter("ignore", FutureWarning)  # diffusers uses torch's deprecated weight norm
        if hasattr(loader, "from_config"):
            loader.from_config(facts)
        else:
            loader(loader.config_class.from_dict(facts))


def _tag(name: str) -> str | None:
    """Kind of the model in its `config.json`."""
    config = read_json(_config_file(name, *repository_of(name)))
    config = config if isinstance(config, dict) else {}
    tag = config.get("_class_name") or config.get("model_type")
    return tag if isinstance(tag, str) else None


def repository_of(name: str) -> tuple[str, str]:
    """Split a name into a folder or hub repository, and the subfolder in it.

    Raises:
        PartitaError: the name is neither a folder nor a valid name on the hub.
    """
    if Path(name).is_dir():
        return name, ""
    owner, *rest = name.split("/")
    if not rest or not all((owner, *rest)) or owner in (".", "..", "~"):
        raise PartitaError(f"no model folder {name!r}, and this is not the name of a hub repository")
    return f"{owner}/{rest[0]}", "/".join(rest[1:])


def _config_file(name: str, repository: str, subfolder: str) -> Path:
    if Path(name).is_dir():
        return Path(name) / "config.json"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, "config.json", subfolder=subfolder or None))
    except Exception as error:  # huggingface_hub raises many kinds
        raise PartitaError(f"no model folder {name!r}, and not found on the hub: {first_line(error)}") from None
