"""Probe latents and features: the accuracy of linear classifiers of a data set's labels, with confidence intervals."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import add_where
from ._models import MODEL

if TYPE_CHECKING:
    from partita_core import Codec
    from partita_representation import RepresentationModel

    from partita.data import Clip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"codec or representation model: {MODEL}")
    parser.add_argument("--data", required=True, help="folder of audio, Parquet data set, or name on the hub")
    parser.add_argument(
        "--column", help="column of the classes (default: label), or, with --answers, of the texts (default: text)"
    )
    add_where(parser)
    parser.add_argument(
        "--answers", metavar="PROMPT", help="evaluate the answers of the frozen language model to PROMPT instead"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="truncate files to this many seconds (default: 10)")
    parser.add_argument("--seeds", type=int, default=3, help="number of probes per source (default: 3)")
    parser.add_argument("--epochs", type=int, default=10, help="training epochs of a probe (default: 10)")
    parser.add_argument("--batch-size", type=int, default=8, help="items per step (default: 8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results as JSON")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita.probing import ProbeSettings, probe, probe_answers

    from ._files import check_writable, print_status
    from ._models import short_names

    if options.json is not None:
        check_writable(options.json)
    settings = ProbeSettings(epochs=options.epochs, batch_size=options.batch_size, seeds=options.seeds)
    models = {name: _open(path) for name, path in short_names(options.models).items()}
    broken: list[str] = []
    common = {"where": options.where, "seconds": options.seconds, "broken": broken, "progress": _shown}
    if options.answers is None:
        found = probe(models, options.data, column=options.column or "label", settings=settings, **common)
        for task in found.tasks:
            if task.unknown:
                print_status(f"{task.name}: {task.unknown} test items are left out; no training item has their class")
    else:
        answering = _require_language_model(models)
        column = options.column or "text"
        found = probe_answers(answering, options.data, prompt=options.answers, column=column, **common)
    for reason in broken:
        print_status(f"left out: {reason}")
    print(found.to_markdown())
    if options.json is not None:
        found.to_json(options.json)


def _shown(clips: "Iterable[Clip]", total: int) -> "Iterable[Clip]":
    from tqdm import tqdm

    return tqdm(clips, total=total, unit="clip")


def _open(name: str) -> "Codec | RepresentationModel":
    from partita_core import Codec, PartitaError
    from partita_representation import RepresentationModel

    from partita.model_loading import load_model

    model = load_model(name)
    if not isinstance(model, (Codec, RepresentationModel)):
        kind = type(model).__name__
        raise PartitaError(f"{name} is a {kind}, not a codec or representation model; only these can be probed")
    return model


def _require_language_model(models: "dict[str, Codec | RepresentationModel]") -> "dict[str, RepresentationModel]":
    from partita_core import PartitaError
    from partita_representation import RepresentationModel

    found = {}
    for name, model in models.items():
        if not isinstance(model, RepresentationModel) or model.adapter is None:
            raise PartitaError(f"{name} has no language model; pass a representation model trained with --llm")
        found[name] = model
    return found
