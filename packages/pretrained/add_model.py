"""Write a model of this package from a run: weights rounded to half precision, and a card with data and measurements.

    python packages/pretrained/add_model.py NAME RUN/model --data DIR
    partita evaluate NAME --data DIR --json EVALUATION.json
    python packages/pretrained/add_model.py NAME RUN/model --data DIR --evaluation EVALUATION.json

The first command writes the rounded weights, which the second measures; the third writes the same weights, with a
complete card. DIR is the training data, whose metadata has the columns `licence` and `attribution`; the card lists
those of the rows that the run was trained on. Its sections `## Use` and `## Limits` are from `about/NAME.md`.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from partita.data import open_dataset
from partita.evaluation import Evaluation
from partita.evaluation.results import format_interval
from partita.model_loading import load_model
from partita.training import RunFolder
from partita.training.logs import read_log
from partita.training.model_card import TrainingSummary, ValidationMetric, model_card
from partita.training.run import read_run_config
from partita.training.statistics import audio_hours
from partita_core import PartitaError, round_to_half

LICENSE = "cc-by-sa-4.0"
HERE = Path(__file__).resolve().parent
MODELS = HERE / "src" / "partita_pretrained" / "models"

# Data of these licenses would restrict the weights, or forbid them.
_EXCLUDED = ("GPL", "NC", "ND")


def main(arguments: list[str] | None = None) -> None:
    """Write one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="name of the model")
    parser.add_argument("model", type=Path, metavar="MODEL", help="RUN/model, or RUN/checkpoints/step_...")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data set that the run was trained on")
    parser.add_argument("--evaluation", type=Path, metavar="FILE", help="JSON of `partita evaluate NAME`")
    parser.add_argument(
        "--clips", help="origin of the evaluated clips (default: the split `test` of the training data)"
    )
    parser.add_argument("--about", type=Path, metavar="FILE", help="another text than about/NAME.md")
    parser.add_argument(
        "--output", type=Path, default=MODELS, help="folder of all models (default: that of the package)"
    )
    options = parser.parse_args(arguments)
    options.about = options.about or HERE / "about" / f"{options.name}.md"
    try:
        print(add_model(**vars(options)))
    except (PartitaError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def add_model(
    name: str,
    model: Path,
    *,
    data: Path,
    about: Path,
    evaluation: Path | None = None,
    output: Path = MODELS,
    clips: str | None = None,
) -> Path:
    """Write a model and its card, and return its folder; see the arguments of the command.

    Raises:
        PartitaError: the model belongs to no run, a file cannot be read, or the data does not permit publication.
    """
    run = RunFolder.of_model(model)
    if run is None:
        raise PartitaError(f"{model} is neither RUN/model nor a checkpoint of a run with a log")
    config, recipe = read_run_config(run.config)
    text = about.read_text(encoding="utf-8").strip()
    if not {"## Use", "## Limits"} <= set(text.splitlines()):
        raise PartitaError(f"{about} lacks a section; it must have ## Use and ## Limits")
    rows = open_dataset(data, split="train", where=config.data.where)
    steps, seconds = trained(run, model)
    found = None if evaluation is None else evaluated(evaluation, name)
    summary = TrainingSummary(
        recipe=name,
        objective=config.objective.tag,
        data=data.name,
        files=len(rows),
        hours=audio_hours(rows),
        steps=steps,
        seconds=seconds,
        device="one CPU core (processor time)",
        split="test",
        measured=[] if found is None else metrics_of(found, name),
    )
    where = clips or f"the split `test` of `{data.name}`"
    body = "\n".join(
        [
            f"The recipe is `{recipe}`. Weights are rounded to half precision.\n",
            text,
            "" if found is None else f"\n## Measured\n\n{measured_section(found, where)}",
            data_section(rows, f"{data.name}: {config.data.where}" if config.data.where else data.name),
            "## License\n\nThe weights are under CC-BY-SA-4.0 (`LICENSE-WEIGHTS` of `partita-pretrained`).\n",
        ]
    )
    weights = load_model(model)
    round_to_half(weights)
    weights.save_pretrained(
        output / name, card=model_card(weights, summary, load=name, license=LICENSE, body=body), half=True
    )
    return output / name


def trained(run: RunFolder, model: Path) -> tuple[int, float]:
    """Steps and processor seconds of a run, up to the step of `model` if that is a checkpoint."""
    lines = [line for line in read_log(run.log) if "cpu_seconds" in line]
    if model.name.startswith("step_"):
        step = int(model.name.removeprefix("step_"))
        lines = [line for line in lines if line["step"] <= step]
    else:
        step = max((line["step"] for line in lines), default=0)
    if not lines:
        raise PartitaError(f"{run.log} has no processor time up to step {step}")
    return step, max(line["cpu_seconds"] for line in lines)


def evaluated(path: Path, name: str) -> Evaluation:
    """Read an evaluation of a model.

    Raises:
        PartitaError: the file is not an evaluation, or has no system of this name.
    """
    found = Evaluation.load(path)
    if name not in found.means:
        raise PartitaError(f"{path} has no system {name!r}, but {', '.join(found.means)}; use partita evaluate {name}")
    return found


def metrics_of(found: Evaluation, name: str) -> list[ValidationMetric]:
    """Metrics of a system, for the metadata of the card."""
    means = found.means[name]
    return [ValidationMetric(each.name, each.title, means[each.name].mean, means[each.name]) for each in found.metrics]


def measured_section(found: Evaluation, clips: str) -> str:
    """Sentence about the clips, and a table with a row per metric and a column per system."""
    confidence = f"{100 * found.settings['confidence']:g} %"
    lines = [
        f"Means over {len(found.clips)} clips of {clips}, with {confidence} bootstrap intervals.",
        "",
        f"| metric | {' | '.join(found.means)} |",
        "|---|" + "---:|" * len(found.means),
    ]
    for metric in found.metrics:
        values = (format_interval(means[metric.name]) for means in found.means.values())
        lines.append(f"| {metric.title} | {' | '.join(values)} |")
    return "\n".join([*lines, ""])


def data_section(rows: Any, name: str) -> str:
    """Licenses of training files, with the number of files, and all attributions.

    Raises:
        PartitaError: a file has no license or attribution, or one that excludes it from published weights.
    """
    if missing := {"licence", "attribution"} - set(rows.column_names):
        raise PartitaError(f"{name} has no column {' or '.join(sorted(missing))}; published weights need both")
    pairs = set(zip(rows["licence"], rows["attribution"]))
    for licence, attribution in pairs:
        if not licence or not attribution:
            raise PartitaError(
                f"{name}: a file has licence {licence!r} and attribution {attribution!r}; both are needed"
            )
        if any(part in licence.upper().split("-") for part in _EXCLUDED):
            raise PartitaError(f"{name}: a file has licence {licence}; train on others, with data.where")
    table = [f"| {licence} | {count} |" for licence, count in sorted(Counter(rows["licence"]).items())]
    listed = [f"- {attribution} ({licence})" for licence, attribution in sorted(pairs)]
    heading = ["## Training data", "", f"`{name}`:", "", "| license | files |", "|---|---:|"]
    return "\n".join([*heading, *table, "", "Attribution:", "", *listed, ""])


if __name__ == "__main__":
    main()
