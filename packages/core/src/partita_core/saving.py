"""Saving of models as folders: `config.json`, `model.safetensors` and a model card. Never a pickle."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from .configs import from_dict, to_dict
from .errors import PartitaError, first_line, short_repr, shorten
from .files import check_finite, read_json, read_shapes, read_tensors, write_json, write_tensors
from .fingerprints import uncompiled_state, unwrap_compiled
from .half import exactly_half
from .loading import build_for, build_shell, check_folder, check_weights
from .outputs import atomic_folder, finish_interrupted_write
from .registry import Config

# Number of the format of a model's `config.json`, changed whenever names in it change.
SCHEMA = 2

# The files of a model.
_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"

S = TypeVar("S", bound="Saved")


class Saved(nn.Module, ABC):
    """A model that is saved to a folder, and loaded from a folder or from the Hugging Face Hub."""

    @abstractmethod
    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Config that builds the model, and further entries of `config.json`.

        Raises:
            PartitaError: a part was not built from a registered Config.
        """

    @abstractmethod
    def restore(self, facts: dict[str, Any]) -> None:
        """Restore the further entries that `saved_config` returned."""

    def nested(self) -> "dict[str, Saved]":
        """The models that this one is built on, by name; each is saved as a sub-folder of that name.

        On loading they are passed to the Config's `build` under the same names.
        """
        return {}

    def save_pretrained(self, folder: str | Path, *, card: str | None = None, half: bool = False) -> None:
        """Write the model to a folder, all files or none. Files of an earlier model are replaced; others stay.

        Weights keep their names from before `torch.compile`. They are checked against a model built from the Config,
        so that every saved model can be loaded.

        Args:
            folder: folder to write.
            card: text of README.md; None for a short one that lists the Config.
            half: store tensors as float16 where it holds their values exactly, as after `round_to_half`. Loading gives
                the same weights, in their own dtypes.

        Raises:
            PartitaError: the model cannot be rebuilt from its Config, or its weights do not fit it; the folder cannot
                be written, or holds a file of the same name that is not of a saved model.
        """
        config, facts = self.saved_config()
        nested, weights = self.nested(), uncompiled_state(self)
        name = f"this {type(self).__name__}"
        build_shell(weights, lambda: config.build(**nested), name, kind=type(self))
        check_finite(weights, name)
        facts = facts | ({"nested": list(nested)} if nested else {})
        card = f"# {type(self).__name__}\n\nBuilt from:\n\n```\n{config}\n```\n" if card is None else card
        earlier = _nested_before(Path(folder), [_CONFIG, _WEIGHTS, _CARD, *nested])
        with atomic_folder(folder) as aside:
            write_json(aside / _CONFIG, {"schema": SCHEMA, "model": to_dict(config)} | facts)
            write_tensors(aside / _WEIGHTS, exactly_half(weights) if half else weights)
            (aside / _CARD).write_text(card, encoding="utf-8")
            for name, model in nested.items():
                model.save_pretrained(aside / name, half=half)
        for name in set(earlier) - set(nested):
            remove_model(Path(folder) / name)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """Load a model from a folder or a Hub repository, in eval mode on the CPU.

        Args:
            name: folder, or id of a Hub repository.
            revision: branch, tag or commit of the repository.

        Raises:
            PartitaError: there is no such model, it is of another type, or its weights do not fit.
        """
        folder = Path(name)
        if not os.path.isdir(folder):  # unlike Path.is_dir, False for names that no file system allows
            folder = _download(str(name), revision)
        finish_interrupted_write(folder)
        return _load(cls, folder, root=folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the Hub as `repo_id` and return its URL."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as scratch:
            self.save_pretrained(Path(scratch) / "model")
            return str(api.upload_folder(repo_id=repo_id, folder_path=Path(scratch) / "model"))


def config_of_part(part: Any) -> Config:
    """The Config that a part was built from.

    Raises:
        PartitaError: it was not built from a registered Config.
    """
    config = getattr(part, "config", None)
    if not isinstance(config, Config):
        kind = type(unwrap_compiled(part)).__name__
        raise PartitaError(f"{kind} has no registered Config and cannot be saved; register its class with @register")
    return config


def _nested_before(folder: Path, names: list[str]) -> list[str]:
    """Names of the models nested in an earlier model in a folder; check that only files of a model are replaced.

    Raises:
        PartitaError: one of `names` exists, but no `config.json` of a model; the first is named.
    """
    found = [name for name in names if (folder / name).exists()]
    if not found:
        return []
    try:
        facts = read_json(folder / _CONFIG)
    except PartitaError:
        facts = None
    if not isinstance(facts, dict) or not {"schema", "model"} <= facts.keys():
        raise PartitaError(f"{folder} holds a {found[0]} that is not of a Partita model; use another folder")
    nested = facts.get("nested", [])
    return [name for name in nested if isinstance(name, str) and Path(name).name == name] if nested else []


def remove_model(folder: Path) -> None:
    """Remove the files of a model and of its nested models, and the folder if it is then empty."""
    with suppress(PartitaError, OSError):
        for name in _nested_before(folder, [_CONFIG]):
            remove_model(folder / name)
        for name in (_WEIGHTS, _CARD, _CONFIG):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: Any) -> None:
    """Load `tensors` into `module`, after checking names, shapes, dtypes, and finite values in the module's dtypes.

    Raises:
        PartitaError: a tensor does not fit; the first is named.
    """
    own = module.state_dict()
    check_weights(own, tensors, source)
    cast = {name: tensor.to(own[name].dtype) for name, tensor in tensors.items()}
    check_finite(cast, source)
    with torch.no_grad():
        module.load_state_dict(cast)


def _load(cls: type[S], folder: Path, *, root: Path) -> S:
    """Load the model of a folder within `root`, in eval mode."""
    facts_file, weights_file = folder / _CONFIG, folder / _WEIGHTS
    check_folder(folder, [facts_file.name, weights_file.name], root)
    facts = read_json(facts_file)
    _check_schema(facts, facts_file)
    config = from_dict(Config, facts.get("model"), where="model")
    nested = _load_nested(config, folder, facts.get("nested", []), root)
    model = build_for(read_shapes(weights_file), config, lambda: config.build(**nested), folder, kind=cls)
    tensors, _ = read_tensors(weights_file)
    load_weights(model, tensors, weights_file)
    try:
        model.restore(facts)
    except (KeyError, TypeError):
        raise PartitaError(
            f"{facts_file} lacks entries that a {type(model).__name__} needs; save the model again"
        ) from None
    return model.eval()


def _check_schema(facts: Any, file: Path) -> None:
    schema = facts.get("schema") if isinstance(facts, dict) else None
    if not isinstance(schema, int):
        raise PartitaError(f"{file} is not the config of a Partita model: it has no schema; use another folder")
    if schema < SCHEMA:
        raise PartitaError(
            f"{file} has schema {schema}, and this version reads schema {SCHEMA}; train the model again, or use the"
            " version of Partita that saved it"
        )
    if schema > SCHEMA:
        raise PartitaError(f"{file} has schema {schema}, and this version reads schema {SCHEMA}; update Partita")


def _load_nested(config: Config, folder: Path, names: Any, root: Path) -> dict[str, Saved]:
    """Load the models that `config` is built on, from the sub-folders `names`."""
    taken = signature(config.build).parameters
    needed = {name for name, parameter in taken.items() if parameter.default is Parameter.empty}
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PartitaError(f"{folder / _CONFIG}: nested is {short_repr(names)}; a list of names is expected")
    if not needed <= set(names) <= taken.keys():
        expected, given = ", ".join(taken) or "no other model", shorten(", ".join(names)) or "none"
        raise PartitaError(f"a {config.tag} is built on {expected}, but {folder / _CONFIG} names {given}")
    check_folder(folder, names, root)
    for name in names:
        if not (folder / name).is_dir():
            raise PartitaError(f"{folder} lacks the folder {name!r} of a nested model; copy the complete model folder")
    return {name: _load(Saved, folder / name, root=root) for name in names}


def _download(name: str, revision: str | None) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise PartitaError(f"no model folder {name!r}, and it is not the id of a Hub repository, such as user/model")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise PartitaError(f"no model folder {name!r}; install huggingface_hub to load models from the Hub") from None
    patterns = ["*.json", "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # huggingface_hub raises many types
        raise PartitaError(
            f"no model folder {name!r}, and loading it from the Hub failed: {first_line(error)}"
        ) from None
