"""Ask what a linear layer reads from latents and features: the labels of a data set, with intervals."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partita_core import Codec
    from partita_representation import RepresentationModel

    from partita.data import Clip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders of codecs and representation models")
    parser.add_argument("--data", required=True, help="folder of audio, Parquet set, or name on the hub")
    parser.add_argument("--column", help="of the classes (default label), or of the texts with --answers (text)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", help="rows to take; may be repeated"
    )
    parser.add_argument("--answers", metavar="PROMPT", help="compare what the frozen language model answers to PROMPT")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each file at most (default 10)")
    parser.add_argument("--seeds", type=int, default=3, help="probes of each source (default 3)")
    parser.add_argument("--epochs", type=int, default=10, help="of training a probe (default 10)")
    parser.add_argument("--batch-size", type=int, default=8, help="items a step (default 8)")
    parser.add_argument("--json", type=Path, metavar="F", help="also write everything as JSON")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita.probing import ProbeSettings, probe, probe_answers

    from ._files import check_writable, say
    from ._models import short_names

    where = _conditions(options.where)
    if options.json is not None:
        check_writable(options.json)
    settings = ProbeSettings(epochs=options.epochs, batch_size=options.batch_size, seeds=options.seeds)
    models = {name: _open(path) for name, path in short_names(options.models).items()}
    broken: list[str] = []
    common = {"where": where, "seconds": options.seconds, "broken": broken, "progress": _shown}
    if options.answers is None:
        found = probe(models, options.data, column=options.column or "label", settings=settings, **common)
        for task in found.tasks:
            if task.unknown:
                say(f"{task.name}: {task.unknown} test items are left out; no training item has their class")
    else:
        talking = _talking(models)
        found = probe_answers(talking, options.data, prompt=options.answers, column=options.column or "text", **common)
    for reason in broken:
        say(f"left out: {reason}")
    print(found.to_markdown())
    if options.json is not None:
        found.to_json(options.json)


def _shown(clips: "Iterable[Clip]", total: int) -> "Iterable[Clip]":
    from tqdm import tqdm

    return tqdm(clips, total=total, unit="clip")


def _conditions(texts: list[str]) -> dict[str, str]:
    from partita_core import PartitaError

    pairs = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not column or not equals or not value:
            raise PartitaError(f"--where {text}: a column and its value are expected, as task=sound_class")
        if column in pairs:
            raise PartitaError(f"--where names {column} twice; a row has one value there")
        pairs[column] = value
    return pairs


def _open(name: str) -> "Codec | RepresentationModel":
    from partita_core import Codec, PartitaError
    from partita_representation import RepresentationModel

    from partita.model_loading import load_model

    model = load_model(name)
    if not isinstance(model, (Codec, RepresentationModel)):
        raise PartitaError(f"{name} holds a {type(model).__name__}, which has neither latents nor features to probe")
    return model


def _talking(models: "dict[str, Codec | RepresentationModel]") -> "dict[str, RepresentationModel]":
    from partita_core import PartitaError
    from partita_representation import RepresentationModel

    talking = {}
    for name, model in models.items():
        if not isinstance(model, RepresentationModel) or model.adapter is None:
            raise PartitaError(f"{name} has no language model, and answers nothing; name a representation with one")
        talking[name] = model
    return talking
