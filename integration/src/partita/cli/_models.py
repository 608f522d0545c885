"""The model that a command runs, and in which precision."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partita_core import Codec


def add_model(parser: argparse.ArgumentParser, what: str = "model folder, or name on the hub") -> None:
    """Declares the arguments that `open_model` reads."""
    parser.add_argument("model", metavar="MODEL", help=what)
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="bf16 is faster where the processor has instructions for it, and good to about 40 dB (default float32)",
    )


def open_model(options: argparse.Namespace) -> "Codec":
    """The model, prepared for inference.

    Raises:
        PartitaError: there is none.
    """
    from partita.model_loading import load_codec

    return load_codec(options.model).optimize(precision=options.precision)


def add_levels(parser: argparse.ArgumentParser) -> None:
    """Declares of how many levels of codes a model is heard, where it makes any."""
    what = "levels that models which make codes are decoded from; 0 for their latents (default: all levels)"
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help=what)


def named_models(models: list[str]) -> dict[str, str]:
    """Models by their names: `NAME=MODEL`, or the shortest ends of their paths that tell them apart.

    Raises:
        PartitaError: two are called the same.
    """
    from partita_core import PartitaError

    split = [text.partition("=") if "=" in text and not Path(text).exists() else ("", "", text) for text in models]
    ends = {model: name for name, model in short_names([model for name, _, model in split if not name]).items()}
    found = {name or ends[model]: model for name, _, model in split}
    if len(found) < len(models):
        raise PartitaError(f"two of {len(models)} models are called the same; name them, as NAME=MODEL")
    return found


def short_names(models: list[str]) -> dict[str, str]:
    """Models by the shortest ends of their paths that tell them apart."""
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
