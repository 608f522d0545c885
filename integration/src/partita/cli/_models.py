"""Loading models for a command: their arguments, precision, and names in tables."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import add_num_quantizers

if TYPE_CHECKING:
    from partita_core import Codec


MODEL = "model folder, name of a pretrained model, or name on the hub"
"""Names of models, for help texts; `partita.model_loading.load_model` takes them."""


def add_model(parser: argparse.ArgumentParser, what: str = MODEL) -> None:
    """Add the arguments that `open_model` reads."""
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="precision of the weights; bf16 is faster on processors that support it, with about 40 dB of accuracy "
        "(default: float32)",
    )


def open_model(options: argparse.Namespace) -> "Codec":
    """Load the model, and prepare it for inference.

    Raises:
        PartitaError: it does not exist, or cannot be loaded.
    """
    from partita.model_loading import load_codec

    return load_codec(options.model).optimize(precision=options.precision)


def add_levels(parser: argparse.ArgumentParser) -> None:
    """Add the number of quantizer levels from which models with codes are decoded."""
    add_num_quantizers(parser, "quantizer levels from which models with codes are decoded; 0 for continuous latents")


def holds_model(path: str) -> bool:
    """True unless a path is a folder of audio without the files of a model, run or checkpoint."""
    from partita.data.sources.listing import list_folder

    folder = Path(path)
    if not folder.is_dir() or any((folder / name).exists() for name in ("config.json", "objective.safetensors")):
        return True
    return not list_folder(folder).audio


def named_models(models: list[str]) -> dict[str, str]:
    """Models by name: that in `NAME=MODEL`, or the shortest end of the path that is unique.

    Raises:
        PartitaError: two models have the same name.
    """
    from partita_core import PartitaError

    split = [text.partition("=") if "=" in text and not Path(text).exists() else ("", "", text) for text in models]
    ends = {model: name for name, model in short_names([model for name, _, model in split if not name]).items()}
    found = {name or ends[model]: model for name, _, model in split}
    if len(found) < len(models):
        raise PartitaError(f"two of {len(models)} models have the same name; name them with NAME=MODEL")
    return found


def short_names(models: list[str]) -> dict[str, str]:
    """Models by the shortest ends of their paths that are unique."""
    parts = {model: Path(model).resolve().parts if Path(model).exists() else (model,) for model in models}
    depth = 1
    names = {model: "/".join(part[-depth:]) for model, part in parts.items()}
    while len(set(names.values())) < len(names) or "model" in names.values():
        depth += 1
        longer = {model: "/".join(part[-depth:]) for model, part in parts.items()}
        if longer == names:
            break
        names = longer
    return {name: model for model, name in names.items()}
