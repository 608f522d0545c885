"""Benchmark of learning: quality by processor minutes of training, for networks of about 2 M parameters.

    python benchmarks/learning.py --data DIR --output FOLDER [--minutes M] [--systems NAME ...]

All systems train on the same crops of 16 kHz speech, with the same batches and the same losses on samples, one after
the other on one thread. Continuous ones have 64 numbers at 50 Hz. A system is measured at points of its one run, with
averaged weights; its learning rate falls to zero at the end of the run. Evaluation and reading of data take no
processor time of training. Writes `learning.json` and `learning.svg`, and prints a Markdown table. Runs that are
finished are not repeated.
"""

# ruff: noqa: E402
import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

import matplotlib

matplotlib.use("agg")

from harness import machine, table
from matplotlib import pyplot
from partita.data import open_dataset, spread_rows, whole_files
from partita.data.clip_latents import truncate_clip
from partita.evaluation import Evaluation, Interval, evaluate
from partita.evaluation.linear_reference import fit_linear_reference
from partita.evaluation.results import format_interval
from partita.model_loading import load_codec
from partita.recipes import recipe
from partita.training import Callback, RunConfig, train
from partita.training.logs import read_log
from partita_bottlenecks import IdentityConfig
from partita_core import AutoencoderConfig, Config, lookup
from partita_decoders import OobleckDecoderConfig
from partita_encoders import OobleckEncoderConfig
from partita_quantizers import ResidualVQConfig
from vocos_shaped import VocosShapedDecoderConfig, VocosShapedEncoderConfig

METRICS = ("stoi", "pesq", "si_sdr", "log_mel_l1", "frame_buzz")
LINEAR, NOISE = "best linear codec", "matched noise"
_STRIDES, _CHANNELS = (2, 4, 5, 8), (16, 32, 64, 128, 256)


def peer(encoder: Config, bottleneck: Config, decoder: Config) -> RunConfig:
    """Networks in the shape of a peer's, trained as `speech_pocket` is."""
    ours: Any = recipe("speech_pocket")
    model = AutoencoderConfig(ours.model.audio, 64, encoder, bottleneck, decoder)
    losses = {name: weight for name, weight in ours.objective.weights.items() if name in ours.objective.losses}
    adamw = replace(ours.trainer.optimizers["generator"], lr=1e-3)
    trainer = replace(ours.trainer, optimizers={"generator": adamw})
    return replace(ours, model=model, objective=replace(ours.objective, weights=losses), trainer=trainer)


def oobleck(bottleneck: Config, activation: Any) -> RunConfig:
    """Convolutions at the sample rate, in the shape of Oobleck and DAC."""
    encoder = OobleckEncoderConfig(strides=_STRIDES, channels=_CHANNELS, activation=activation)
    decoder = OobleckDecoderConfig(strides=_STRIDES[::-1], channels=_CHANNELS[::-1], activation=activation)
    return peer(encoder, bottleneck, decoder)


SYSTEMS: dict[str, Callable[[], RunConfig]] = {
    "speech_pocket": lambda: recipe("speech_pocket"),
    "speech_pocket_vq, 2.85 kbit/s": lambda: recipe("speech_pocket_vq"),
    "f3_pocket, 1600 numbers/s": lambda: recipe("f3_pocket"),
    "Oobleck": lambda: oobleck(IdentityConfig(), "snake_beta"),
    "DAC-shaped, 6 kbit/s": lambda: oobleck(ResidualVQConfig(num_quantizers=12, codebook_size=1024), "snake"),
    "Vocos-shaped": lambda: peer(VocosShapedEncoderConfig(), IdentityConfig(), VocosShapedDecoderConfig()),
}


class Checkpoints(Callback):
    """Paths of the checkpoints of a run."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def on_checkpoint(self, path: Path) -> None:
        """Remember a checkpoint; see `Callback`."""
        self.paths.append(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, and write results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="processor minutes of training per system")
    parser.add_argument("--points", type=int, default=6, help="checkpoints per run")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS], metavar="NAME")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=20, help="number of clips, spread over the split")
    parser.add_argument("--seconds", type=float, default=6.0, help="maximum length of a clip")
    options = parser.parse_args(arguments)
    dataset = open_dataset(options.data, split=options.split)
    dataset = dataset.select(spread_rows(len(dataset), options.limit))
    clips = [truncate_clip(clip, options.seconds) for clip in whole_files(dataset, sample_rate=16_000, mono=True)]
    record: dict[str, Any] = {"machine": machine(), "minutes": options.minutes, "clips": len(clips), "curves": {}}
    for number, name in enumerate(SYSTEMS):
        if name in options.systems:
            points, parameters = learn(SYSTEMS[name](), options, options.output / f"run{number}", clips)
            record["curves"][name] = {"parameters": parameters, "points": points}
            print(f"{name}: {points[-1]}", flush=True)
    record["references"] = references(options, clips)
    (options.output / "learning.json").write_text(json.dumps(record, indent=2) + "\n")
    draw(record, options.output / "learning.svg")
    print(table(["system", "parameters", "processor min", "steps", *METRICS], lines(record)))


def learn(config: RunConfig, options: argparse.Namespace, output: Path, clips: Sequence[Any]) -> tuple[list, int]:
    """Train a system and measure its checkpoints: processor minutes, steps, and metrics with intervals per point."""
    config = replace(config, trainer=replace(config.trainer, steps=1_000_000, log_every=5))
    if not (output / "model").exists():
        train(
            config,
            data=options.data,
            output=output,
            cpu_minutes=options.minutes,
            checkpoint_minutes=options.minutes / options.points,
            keep=1000,
            resume=True,
        )
    spent = {line["step"]: line["cpu_seconds"] / 60 for line in read_log(output / "log.jsonl") if "cpu_seconds" in line}
    points = []
    for path in sorted((output / "checkpoints").glob("step_*")):
        step = int(path.name.removeprefix("step_"))
        if reached := [minutes for logged, minutes in spent.items() if logged <= step]:
            points.append({"minutes": max(reached), "step": step, **measure(load_codec(path), clips)})
    return points, sum(parameter.numel() for parameter in load_codec(output / "model").parameters())


def measure(codec: Any, clips: Sequence[Any]) -> dict[str, list[float]]:
    """Mean and confidence interval by metric."""
    found = evaluate({"model": codec}, named(clips), metrics=metrics(), references=False)
    return means(found, "model")


def references(options: argparse.Namespace, clips: Sequence[Any]) -> dict[str, dict[str, list[float]]]:
    """Metrics of the linear codec of 64 numbers per frame, which is fitted but not trained, and of noise."""
    linear = fit_linear_reference(recipe("speech_pocket").model.build(), open_dataset(options.data))
    assert linear is not None
    found = evaluate({LINEAR: linear.codec}, named(clips), metrics=metrics())
    return {name: means(found, name) for name in (LINEAR, NOISE)}


def metrics() -> list[Any]:
    """Metrics of the table."""
    return [lookup(f"metric/{name}")() for name in METRICS]


def named(clips: Sequence[Any]) -> list[tuple[str, Any, Any]]:
    """Clips as `evaluate` takes them."""
    return [(clip.name, clip.audio, clip.layout) for clip in clips]


def means(found: Evaluation, name: str) -> dict[str, list[float]]:
    """Mean and bounds of the interval by metric."""
    return {metric: [each.mean, each.low, each.high] for metric, each in found.means[name].items()}


def lines(record: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table: every system at the end of its run, and the references."""
    rows = []
    for name, curve in record["curves"].items():
        last = curve["points"][-1]
        facts = [f"{curve['parameters'] / 1e6:.1f} M", f"{last['minutes']:.1f}", str(last["step"])]
        rows.append([name, *facts, *(format_interval(Interval(*last[metric])) for metric in METRICS)])
    for name, values in record["references"].items():
        rows.append([name, "", "0", "", *(format_interval(Interval(*values[metric])) for metric in METRICS)])
    return rows


def draw(record: Mapping[str, Any], path: Path) -> None:
    """One panel per metric, one curve per system, with the interval over clips as a band."""
    pyplot.rcParams["svg.hashsalt"] = "partita"
    figure, panels = pyplot.subplots(1, len(METRICS), figsize=(4 * len(METRICS), 3.6), layout="constrained")
    for panel, metric in zip(panels, METRICS, strict=True):
        for name, curve in record["curves"].items():
            minutes = [point["minutes"] for point in curve["points"]]
            mean, low, high = zip(*(point[metric] for point in curve["points"]), strict=True)
            (line,) = panel.plot(minutes, mean, marker="o", markersize=3, label=name)
            panel.fill_between(minutes, low, high, color=line.get_color(), alpha=0.12)
        for (name, values), style in zip(record["references"].items(), ("--", ":"), strict=True):
            panel.axhline(values[metric][0], color="gray", linestyle=style, label=name)
        panel.set(title=metric, xlabel="processor minutes", xscale="log")
    panels[0].legend(fontsize="x-small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
