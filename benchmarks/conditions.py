"""Benchmark of text conditioning: linear probes classify audio that was generated for the text of each class.

    python benchmarks/conditions.py GENERATOR --data DIR [--column label] [--where COLUMN=VALUE,...] [--text "{label}"]
        [--draws N] [--seconds S] [--json F] [--report F.html]

Probes (`partita probe`) are trained to classify recordings of the split "train" by a column, from log-mel spectra and
from the latents of the codec. Then audio is generated for the text of every class, decoded, and classified:

1. accuracy of the probes on recordings of the split "test", and on generated audio;
2. accuracy on audio generated without a text from the same seeds, for which chance is expected;
3. checks that all samples are finite and that generated audio has the requested length.

Prints a Markdown table and writes a page with players, a recording of each class next to audio generated for it. Equal
for equal model, data and seed on one machine.
"""

# ruff: noqa: E402
import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from partita.cli._runtime import prepare_process

prepare_process()

import torch
from harness import machine, table
from partita.cli._arguments import add_where
from partita.data import whole_files
from partita.data.clip_latents import codec_input
from partita.data.clips import Clip
from partita.evaluation import Bootstrap
from partita.evaluation.references import fit
from partita.evaluation.results import format_interval
from partita.generation import Generator
from partita.model_loading import load_model
from partita.probing import (
    Examples,
    LabelTask,
    LinearProbe,
    ProbeSettings,
    fit_probe,
    open_tasks,
    pooled_features,
)
from partita.report import write_report
from partita_core import ChannelLayout, Codec, PartitaError, to_dict, write_json
from torch import Tensor
from tqdm import tqdm

SETTINGS = ProbeSettings(epochs=100)
WITH_TEXT, WITHOUT_TEXT, RECORDED = "generated for its text", "generated without a text", "recordings"
CODEC = "codec"
# Generated clips per class on the page.
SHOWN = 3


class Draw(NamedTuple):
    """Generated audio `(channels, samples)` and its class."""

    label: int
    audio: Tensor


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, classify, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", metavar="GENERATOR")
    parser.add_argument("--data", required=True)
    parser.add_argument("--column", default="label")
    add_where(parser)
    parser.add_argument("--text", default="{label}", help='prompt, with columns in braces: "a sound of {label}"')
    parser.add_argument("--draws", type=int, default=8, help="generated clips per class")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="F")
    parser.add_argument("--report", type=Path, metavar="F.html")
    options = parser.parse_args(arguments)

    generator = load_model(options.generator).eval()
    if not isinstance(generator, Generator):
        raise PartitaError(f"{options.generator} holds a {type(generator).__name__}, which is not a generator")
    splits, (task, *others) = open_tasks(options.data, column=options.column, where=options.where)
    if others:
        raise PartitaError(f"{options.data} has {1 + len(others)} tasks; name one with --where task={task.name}")

    clips = {name: read(split, task, name) for name, split in splits.items()}
    examples = {name: features(generator.codec, found, options.seconds) for name, found in clips.items()}
    probes = {
        source: [
            fit_probe(found, examples.get("validation", {}).get(source), classes=len(task.classes), **seeded(seed))
            for seed in range(SETTINGS.seeds)
        ]
        for source, found in examples["train"].items()
    }
    drawn = {
        WITH_TEXT: draw(
            generator, task, [options.text.format_map({options.column: name}) for name in task.classes], options
        ),
        WITHOUT_TEXT: draw(generator, task, [""] * len(task.classes), options),
    }
    shares = {RECORDED: accuracies(probes, examples["test"])}
    for kind, draws in drawn.items():
        made = [as_clip(each, generator.codec.audio_spec.sample_rate, i) for i, each in enumerate(draws)]
        labels = [each.label for each in draws]
        shares[kind] = accuracies(probes, features(generator.codec, list(zip(made, labels)), options.seconds))
    samples = round(options.seconds * generator.codec.audio_spec.sample_rate)
    everything = [each.audio for draws in drawn.values() for each in draws]
    facts = {
        "finite": all(bool(audio.isfinite().all()) for audio in everything),
        "requested length": all(audio.shape[-1] == samples for audio in everything),
    }
    intervals = {
        kind: {source: Bootstrap(len(scores)).interval(scores) for source, scores in found.items()}
        for kind, found in shares.items()
    }
    if options.json is not None:
        settings = {
            key: value for key, value in vars(options).items() if key not in ("json", "report", "data", "generator")
        }
        record = {"machine": machine(), "settings": settings, "classes": task.classes, "rows": to_dict(intervals)}
        write_json(options.json, record | facts)
    if options.report is not None:
        page(options.report, generator.codec, task, clips["test"], drawn[WITH_TEXT], options)
    print(summary(intervals, shares, len(task.classes)))
    print(", ".join(f"{name}: {'yes' if held else 'NO'}" for name, held in facts.items()))


def seeded(seed: int) -> dict[str, Any]:
    """Keyword arguments of `fit_probe` for one seed."""
    return {"settings": SETTINGS, "seed": seed}


def read(split: Any, task: LabelTask, name: str) -> list[tuple[Clip, int]]:
    """Clips of a split that have a class of the task, with the number of the class."""
    items = task.items.get(name, ())
    labels = [label for _, label in items]
    clips = whole_files(split.select([row for row, _ in items])) if items else ()
    return [(clip, labels[clip.index]) for clip in tqdm(clips, total=len(items), desc=name)]


def features(codec: Codec, clips: Sequence[tuple[Clip, int]], seconds: float) -> dict[str, Examples]:
    """Inputs of the probes: log-mel and latents, pooled over time."""
    if not clips:
        return {}
    found = pooled_features({CODEC: codec}, (clip for clip, _ in clips), seconds=seconds)
    labels = {clip.index: label for clip, label in clips}
    return {
        source: Examples(torch.stack(list(rows.values())), torch.tensor([labels[row] for row in rows]))
        for source, rows in found.items()
    }


@torch.no_grad()
def draw(generator: Generator, task: LabelTask, texts: Sequence[str], options: argparse.Namespace) -> list[Draw]:
    """Generate `options.draws` clips per class; the seeds do not depend on the texts."""
    found = []
    for label, text in enumerate(tqdm(texts, desc="generating")):
        seeds = [options.seed + label * options.draws + i for i in range(options.draws)]
        latents = generator.generate([text] * options.draws, options.seconds, seed=seeds, guidance=options.guidance)
        audio = generator.codec.decode(latents, seed=options.seed).cpu()
        found += [Draw(label, each) for each in audio]
    return found


def as_clip(drawn: Draw, sample_rate: int, index: int) -> Clip:
    """Generated audio as a `Clip`."""
    layout = ChannelLayout.MONO if drawn.audio.shape[0] == 1 else ChannelLayout.STEREO
    return Clip(index, str(index), drawn.audio, sample_rate, layout, {})


@torch.no_grad()
def accuracies(probes: Mapping[str, Sequence[LinearProbe]], examples: Mapping[str, Examples]) -> dict[str, list[float]]:
    """Per source and item, the share of probes that predict the item's class."""
    return {
        source: torch.stack([(each(found.features).argmax(1) == found.labels).double() for each in probes[source]])
        .mean(0)
        .tolist()
        for source, found in examples.items()
    }


def page(
    path: Path,
    codec: Codec,
    task: LabelTask,
    recorded: Sequence[tuple[Clip, int]],
    drawn: Sequence[Draw],
    options: argparse.Namespace,
) -> None:
    """One card per class: its first recording, the codec's reconstruction, and the first generated clips."""
    rate = codec.audio_spec.sample_rate
    samples = round(options.seconds * rate)
    cards = []
    for label, name in enumerate(task.classes):
        of_class = [clip for clip, other in recorded if other == label]
        if not of_class:
            continue
        audio, layout = codec_input(codec, of_class[0])
        audio = fit(audio, samples)
        decoded = codec.decode(codec.encode(audio[None], layout=layout), seed=options.seed)[0].cpu()
        draws = [each.audio for each in drawn if each.label == label][:SHOWN]
        if audio.shape[0] < draws[0].shape[0]:
            audio, decoded = (each.expand(draws[0].shape[0], -1) for each in (audio, decoded))
        made = {f"Generated {i}": each for i, each in enumerate(draws, start=1)}
        cards.append((name, audio, {"Codec": decoded, **made}, rate))
    write_report(
        path,
        title="Generated audio by text",
        clips=cards,
        summary=[
            ("Text", options.text),
            ("Original", "a recording of the class, for comparison only"),
            ("Guidance", f"{options.guidance:g}"),
        ],
    )


def summary(intervals: Mapping[str, Any], shares: Mapping[str, Any], classes: int) -> str:
    """One row for recordings, and one per way of generating."""
    sources = list(intervals[RECORDED])
    rows = [
        [kind, str(len(next(iter(shares[kind].values())))), *(format_interval(found[source]) for source in sources)]
        for kind, found in intervals.items()
    ]
    rows.append(["chance", "", *[f"{1 / classes:.3f}"] * len(sources)])
    heading = ["accuracy", "items", *(f"probe of {source}" for source in sources)]
    return table(heading, rows)


if __name__ == "__main__":
    main()
