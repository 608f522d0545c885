"""Pretrained models of Partita: their names, the folders that hold their weights, and a recording to try them on."""

from pathlib import Path

__all__ = ["clip", "folder", "names"]

_MODELS = Path(__file__).parent / "models"


def clip() -> Path:
    """Recording to try the models of speech on: three seconds of read speech that is in no training data.

    Its source and license are in the `README.md` beside it.
    """
    return Path(__file__).parent / "clips" / "read_speech.flac"


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
