"""Models as folders: `config.json`, `model.safetensors` and a card. Never a pickle."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from .configs import from_dict, to_dict
from .errors import PartitaError
from .files import read_json, read_tensors, write_json, write_tensors, written_aside
from .registry import Config

SCHEMA = 1


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
        """Writes the model as a folder, whole or not at all; an earlier model there is replaced.

        Args:
            folder: where to.
            card: the README.md; None for a short one that says what the model is made of.

        Raises:
            PartitaError: the model cannot be rebuilt from Configs, or the folder cannot be written.
        """
        config, facts = self.saved_config()
        nested = self.nested()
        facts = facts | ({"nested": list(nested)} if nested else {})
        card = f"# {type(self).__name__}\n\nBuilt from:\n\n```\n{config}\n```\n" if card is None else card
        with written_aside(folder) as aside:
            aside.mkdir()
            write_json(aside / "config.json", {"schema": SCHEMA, "model": to_dict(config)} | facts)
            write_tensors(aside / "model.safetensors", self.state_dict())
            (aside / "README.md").write_text(card, encoding="utf-8")
            for name, model in nested.items():
                model.save_pretrained(aside / name)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Self:
        """The model of a folder, or of a repository on the hub, in eval mode on the CPU.

        Raises:
            PartitaError: there is none, or it is no such model, or its weights do not fit.
        """
        folder = Path(name)
        if not folder.is_dir():
            folder = _download(str(name), revision)
        facts = read_json(folder / "config.json")
        if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
            raise PartitaError(f"{folder / 'config.json'} is not a model config of schema {SCHEMA}")
        config = from_dict(Config, facts.get("model"), where="model")
        model = config.build(**_load_nested(config, folder, facts.get("nested", [])))
        if not isinstance(model, cls):
            raise PartitaError(f"{folder} holds a {type(model).__name__}, not a {cls.__name__}")
        tensors, _ = read_tensors(folder / "model.safetensors")
        load_weights(model, tensors, folder / "model.safetensors")
        try:
            model.restore(facts)
        except (KeyError, TypeError):
            raise PartitaError(f"{folder / 'config.json'} lacks what a {cls.__name__} needs") from None
        return model.eval()

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model to the hub as `repo_id` and returns its address."""
        from tempfile import TemporaryDirectory

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with TemporaryDirectory() as scratch:
            self.save_pretrained(Path(scratch) / "model")
            return str(api.upload_folder(repo_id=repo_id, folder_path=Path(scratch) / "model"))


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: Any) -> None:
    """Loads `tensors` into `module`; all names and shapes must fit.

    Raises:
        PartitaError: one does not; the first is named.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unexpected:
        example = f"no {missing[0]}" if missing else f"a stray {unexpected[0]}"
        count = f"{len(missing)} missing and {len(unexpected)} unexpected tensors"
        raise PartitaError(f"{source} holds the weights of another model: {count}, first {example}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            shapes = f"{name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
            raise PartitaError(f"{source} holds the weights of another model: {shapes}")
    with torch.no_grad():
        module.load_state_dict(dict(tensors))


def _load_nested(config: Config, folder: Path, names: Any) -> dict[str, Saved]:
    """The models that `config` is built on, from the sub-folders called `names`; no other place is looked at."""
    taken = signature(config.build).parameters
    needed = {name for name, parameter in taken.items() if parameter.default is Parameter.empty}
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PartitaError(f"{folder / 'config.json'} does not name the models within it: {names!r}")
    if not needed <= set(names) <= taken.keys():
        built, named = ", ".join(taken) or "no other model", ", ".join(names) or "none"
        raise PartitaError(f"a {config.tag} is built on {built}; {folder / 'config.json'} names {named}")
    for name in names:
        if not (folder / name).is_dir():
            raise PartitaError(f"{folder} lacks the folder {name!r} of the model that it is built on")
    return {name: Saved.from_pretrained(folder / name) for name in names}


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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PartitaError(f"no model folder {name!r}, and the hub gave none: {reason}") from None
