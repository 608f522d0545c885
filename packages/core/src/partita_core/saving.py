"""Models as folders: `config.json`, `model.safetensors` and a card. Never a pickle."""

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
from .fingerprints import uncompiled_state
from .loading import build_for, build_shell, check_folder, check_weights
from .outputs import atomic_folder, finish_interrupted_write
from .registry import Config

SCHEMA = 1

# The files of a model.
_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"

S = TypeVar("S", bound="Saved")


class Saved(nn.Module, ABC):
    """A model that is saved as a folder and comes back from one, or from a hub."""

    @abstractmethod
    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Config that builds the model, and what else `config.json` holds of it.

        Raises:
            PartitaError: a part was not built from a registered Config.
        """

    @abstractmethod
    def restore(self, facts: dict[str, Any]) -> None:
        """Takes back what `saved_config` put beside the Config."""

    def nested(self) -> "dict[str, Saved]":
        """The models that this one is built on, by name: each is saved as a folder of that name within this one's.

        They come back to the Config's `build`, by the same names.
        """
        return {}

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> None:
        """Write the model as files of a folder, all or none; those of an earlier model are replaced, the rest stays.

        Names of weights are those before `torch.compile`. The weights are held against the model that will be built of
        its Config, so that what is saved can be loaded.

        Args:
            folder: where to; what else it holds is left alone.
            card: the README.md; None for a short one that says what the model is made of.

        Raises:
            PartitaError: the model cannot be rebuilt from Configs, or its weights would not be loaded; the folder
                cannot be written, or a file in it that would be replaced is not of a model of this kind.
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
            write_tensors(aside / _WEIGHTS, weights)
            (aside / _CARD).write_text(card, encoding="utf-8")
            for name, model in nested.items():
                model.save_pretrained(aside / name)
        for name in set(earlier) - set(nested):
            remove_model(Path(folder) / name)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """The model of a folder, or of a repository on the hub, in eval mode on the CPU.

        Raises:
            PartitaError: there is none, or it is no such model, or its weights do not fit.
        """
        folder = Path(name)
        if not os.path.isdir(folder):  # unlike the method, False of a name that no file system takes
            folder = _download(str(name), revision)
        finish_interrupted_write(folder)
        return _load(cls, folder, root=folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model to the hub as `repo_id` and returns its address."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as scratch:
            self.save_pretrained(Path(scratch) / "model")
            return str(api.upload_folder(repo_id=repo_id, folder_path=Path(scratch) / "model"))


def _nested_before(folder: Path, names: list[str]) -> list[str]:
    """The models within an earlier model in a folder; refuse to replace files that are not of a model.

    Raises:
        PartitaError: one of `names` is there, and no `config.json` of a model; the first is named.
    """
    found = [name for name in names if (folder / name).exists()]
    if not found:
        return []
    try:
        facts = read_json(folder / _CONFIG)
    except PartitaError:
        facts = None
    if not isinstance(facts, dict) or not {"schema", "model"} <= facts.keys():
        raise PartitaError(f"{folder} holds a {found[0]} that is not of a Partita model; name another folder")
    nested = facts.get("nested", [])
    return [name for name in nested if isinstance(name, str) and Path(name).name == name] if nested else []


def remove_model(folder: Path) -> None:
    """Remove the files of a model and of those within it, and the folder if nothing else is in it."""
    with suppress(PartitaError, OSError):
        for name in _nested_before(folder, [_CONFIG]):
            remove_model(folder / name)
        for name in (_WEIGHTS, _CARD, _CONFIG):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: Any) -> None:
    """Load `tensors` into `module`; all names, shapes and types must fit, and all numbers be finite in its types.

    Raises:
        PartitaError: one does not; the first is named.
    """
    own = module.state_dict()
    check_weights(own, tensors, source)
    cast = {name: tensor.to(own[name].dtype) for name, tensor in tensors.items()}
    check_finite(cast, source)
    with torch.no_grad():
        module.load_state_dict(cast)


def _load(cls: type[S], folder: Path, *, root: Path) -> S:
    """The model of a folder, which lies in `root`, in eval mode."""
    facts_file, weights_file = folder / _CONFIG, folder / _WEIGHTS
    check_folder(folder, [facts_file.name, weights_file.name], root)
    facts = read_json(facts_file)
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise PartitaError(f"{facts_file} is not a model config of schema {SCHEMA}")
    config = from_dict(Config, facts.get("model"), where="model")
    nested = _load_nested(config, folder, facts.get("nested", []), root)
    model = build_for(read_shapes(weights_file), config, lambda: config.build(**nested), folder, kind=cls)
    tensors, _ = read_tensors(weights_file)
    load_weights(model, tensors, weights_file)
    try:
        model.restore(facts)
    except (KeyError, TypeError):
        raise PartitaError(f"{facts_file} lacks what a {cls.__name__} needs") from None
    return model.eval()


def _load_nested(config: Config, folder: Path, names: Any, root: Path) -> dict[str, Saved]:
    """The models that `config` is built on, from the sub-folders called `names`; no other place is looked at."""
    taken = signature(config.build).parameters
    needed = {name for name, parameter in taken.items() if parameter.default is Parameter.empty}
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PartitaError(f"{folder / _CONFIG} does not name the models within it: {short_repr(names)}")
    if not needed <= set(names) <= taken.keys():
        built, named = ", ".join(taken) or "no other model", shorten(", ".join(names)) or "none"
        raise PartitaError(f"a {config.tag} is built on {built}; {folder / _CONFIG} names {named}")
    check_folder(folder, names, root)
    for name in names:
        if not (folder / name).is_dir():
            raise PartitaError(f"{folder} lacks the folder {name!r} of the model that it is built on")
    return {name: _load(Saved, folder / name, root=root) for name in names}


def _download(name: str, revision: str | None) -> Path:
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise PartitaError(f"no model folder {name!r}, and no hub repository is called so")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise PartitaError(f"no model folder {name!r}; install huggingface_hub to look on the hub") from None
    patterns = ["*.json", "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # its exceptions are many; what counts is that the model could not be had
        raise PartitaError(f"no model folder {name!r}, and the hub gave none: {first_line(error)}") from None
