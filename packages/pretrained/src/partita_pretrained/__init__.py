"""Pretrained models of Partita: their names, and the folders that hold their weights."""

from pathlib import Path

__all__ = ["folder", "names"]

_MODELS = Path(__file__).parent / "models"


def names() -> tuple[str, ...]:
    """Names of the models, sorted."""
    return tuple(sorted(path.parent.name for path in _MODELS.glob("*/config.json")))


def folder(name: str) -> Path:
    """Folder of a model: `config.json`, `model.safetensors` in half precision, and the model card `README.md`.

    Raises:
        ValueError: there is no such model; the names are listed.
    """
    if name not in names():
        raise ValueError(f"there is no pretrained model {name!r}; the models are {', '.join(names())}")
    return _MODELS / name
