"""Rate-distortion curves of a quantized model: metrics of the same clips decoded from 1, 2, ... levels of codes.

    python benchmarks/rate_distortion.py MODEL --data DIR --output docs/results/NAME [--levels 1 2 4 8 16] [--limit N]

Writes NAME.json with all values and NAME.svg with one curve per metric, and prints a Markdown table. The dashed line is
the continuous latents, the limit for many levels; the band is a 95 % bootstrap interval of the mean over clips.
"""

# ruff: noqa: E402
import argparse
import json
from pathlib import Path
from typing import Any

from partita.cli._runtime import prepare_process

prepare_process()

from harness import machine, table
from matplotlib import pyplot
from partita.data import open_dataset, spread_rows, whole_files
from partita.evaluation import Evaluation, evaluate
from partita.model_loading import load_codec
from partita_core import Codec

REFERENCE = "matched noise"


def main() -> None:
    """Evaluate every number of levels, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    codec = load_codec(options.model).optimize()
    found: dict[int | None, Evaluation] = {}
    for levels in (None, *options.levels):
        found[levels] = _evaluate(codec, options, levels)
        print(f"levels: {levels or 'continuous'}", flush=True)
    curve = {levels: _means(evaluation, "model") for levels, evaluation in found.items()}
    rates = {levels: found[levels].systems[0].bit_rate for levels in options.levels}
    noise = {metric.name: found[None].means[REFERENCE][metric.name].mean for metric in found[None].metrics}
    facts: dict[str, Any] = {"machine": machine(), "clips": len(found[None].clips), "settings": found[None].settings}
    rows = {str(levels or "continuous"): values for levels, values in curve.items()}
    text = json.dumps(facts | {"bit_rates": rates, "means": rows, REFERENCE: noise}, indent=2)
    options.output.with_suffix(".json").write_text(text + "\n")
    _plot(options.output.with_suffix(".svg"), found[None], curve, rates, noise)
    names = [metric.title for metric in found[None].metrics]
    lines = [
        [str(levels or "continuous"), f"{rates[levels]:.0f}" if levels else "", *map(_interval, values.values())]
        for levels, values in curve.items()
    ]
    print(table(["levels", "bit/s", *names], lines))


def _evaluate(codec: Codec, options: argparse.Namespace, levels: int | None) -> Evaluation:
    dataset = open_dataset(options.data, split=options.split)
    if options.limit:
        dataset = dataset.select(spread_rows(len(dataset), options.limit))
    clips = whole_files(dataset, sample_rate=codec.audio_spec.sample_rate)
    named = ((clip.name, clip.audio, clip.layout) for clip in clips)
    return evaluate({"model": codec}, named, num_quantizers=levels or 0, references=levels is None)


def _means(evaluation: Evaluation, system: str) -> dict[str, list[float]]:
    """Mean of each metric with the ends of its interval."""
    return {name: [i.mean, i.low, i.high] for name, i in evaluation.means[system].items()}


def _interval(values: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*values)


def _plot(path: Path, evaluation: Evaluation, curve: dict, rates: dict, noise: dict[str, float]) -> None:
    figure, axes = pyplot.subplots(1, len(evaluation.metrics), figsize=(4 * len(evaluation.metrics), 3.2))
    levels = [level for level in curve if level]
    x = [rates[level] / 1000 for level in levels]
    for axis, metric in zip(axes, evaluation.metrics):
        mean, low, high = zip(*(curve[level][metric.name] for level in levels))
        axis.plot(x, mean, "o-", label="codes")
        axis.fill_between(x, low, high, alpha=0.2)
        axis.axhline(curve[None][metric.name][0], linestyle="--", color="black", linewidth=1, label="latents")
        axis.axhline(noise[metric.name], linestyle=":", color="gray", linewidth=1, label=REFERENCE)
        axis.set(xlabel="kbit/s", title=metric.title, xscale="log", xticks=x, xticklabels=[f"{r:.2g}" for r in x])
        axis.minorticks_off()
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
