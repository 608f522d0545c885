"""Plots that compare models: metrics over rate, robustness to latent noise, and latent statistics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from partita_core import PartitaError, from_dict, lookup, read_json

from partita.evaluation.bootstrap import Interval
from partita.evaluation.results import LATENTS_HEADING, LATENTS_NOTE, Evaluation, MetricInfo, System, format_latents

from .plots import Series, key, plot
from .tables import table

_NOISE = "matched noise"


@dataclass(frozen=True)
class Robustness:
    """Metrics of audio decoded from noisy latents, as written by `benchmarks/robustness.py --json`.

    Attributes:
        snrs: printed signal-to-noise ratios, from no noise to strong noise.
        means: model -> metric -> one interval per ratio.
        floor: metric -> its value for noise with the clips' spectra.
        clips: number of clips.
    """

    snrs: tuple[str, ...]
    means: dict[str, dict[str, tuple[Interval, ...]]]
    floor: dict[str, Interval]
    clips: int

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the file.

        Raises:
            PartitaError: the file has another format.
        """
        saved = read_json(path)
        keys = ("snrs_db", "means", _NOISE, "clips")
        if not isinstance(saved, dict) or not all(isinstance(saved.get(name), (dict, list)) for name in keys):
            raise PartitaError(f"{path} was not written by benchmarks/robustness.py --json")
        snrs, means, floor, clips = (saved[name] for name in keys)
        printed = [str(snr).replace("inf", "∞").replace("-", "−").removesuffix(".0") for snr in snrs]
        found = from_dict(cls, {"snrs": printed, "means": means, "floor": floor, "clips": len(clips)}, where=str(path))
        if any(len(row) != len(printed) for each in found.means.values() for row in each.values()):
            raise PartitaError(f"{path} has a row without {len(printed)} values, one per ratio")
        return found

    def of(self, models: Mapping[str, Any]) -> Self:
        """Select some models.

        Raises:
            PartitaError: none of the models is included.
        """
        selected = {name: each for name, each in self.means.items() if name in models}
        if not selected:
            raise PartitaError(
                f"the robustness curves are of {', '.join(self.means)}, the report is on {', '.join(models)}; "
                "use the same names, as NAME=MODEL"
            )
        return type(self)(self.snrs, selected, self.floor, self.clips)


def rate_distortion(evaluation: Evaluation, colors: Mapping[str, int]) -> str:
    """One plot per metric over numbers per second, and over kbit per second if models have codes."""
    parts = []
    by_numbers = {s.name: s.floats_per_second for s in evaluation.systems if s.floats_per_second is not None}
    by_bits = {s.name: s.bit_rate / 1000 for s in evaluation.systems if s.bit_rate is not None}
    for rates, label in ((by_numbers, "numbers/s"), (by_bits, "kbit/s")):
        models = [s for s in evaluation.systems if s.name in rates and not s.reference]
        if models:
            plots = "".join(_rate_plot(evaluation, each, rates, label, colors) for each in evaluation.metrics)
            parts.append(f'<div class="charts">{plots}</div>')
    if not parts:
        return ""
    names = [(s.name, colors[s.name]) for s in evaluation.systems if not s.reference]
    note = (
        '<p class="note">Means with intervals, by rate. Gray points and dashes are references: the input low-passed to '
        "as many numbers per second, a linear codec of as many, or classical codecs. The dotted line is noise with "
        "each clip’s spectrum.</p>"
    )
    return note + key([*names, ("references", None)]) + "".join(parts)


def robustness_plots(found: Robustness, colors: Mapping[str, int]) -> str:
    """One plot per metric, from clean latents on the left to strong noise on the right."""
    ticks = [(float(i), snr) for i, snr in enumerate(found.snrs)]
    plots = []
    for metric in next(iter(found.means.values())):
        series = [
            _intervals(model, list(range(len(ticks))), each[metric], colors[model])
            for model, each in found.means.items()
            if metric in each
        ]
        if metric in found.floor:
            level = np.asarray([[0.0, found.floor[metric].mean]])
            series.append(Series(_NOISE, level, style="level"))
        title = _title(metric)
        plots.append(plot(title, series, x_label="signal-to-noise ratio of the latents, dB", x_ticks=ticks))
    note = (
        f'<p class="note">Decoded from noisy latents, by the signal-to-noise ratio per frame; means over {found.clips} '
        "clips with intervals. ∞ is without noise; the dotted line is noise with each clip’s spectrum.</p>"
    )
    names = [(model, colors[model]) for model in found.means]
    return f'{note}{key([*names, (_NOISE, None)])}<div class="charts">{"".join(plots)}</div>'


def latent_plots(evaluation: Evaluation, colors: Mapping[str, int]) -> str:
    """Table of each model's latent statistics, and plots per principal direction and channel."""
    found = evaluation.latents
    spectra, spreads, tails = [], [], []
    for model, each in found.items():
        color = colors[model]
        spectrum = np.maximum(np.asarray(each.spectrum), 1e-8)
        spectra.append(Series(model, _numbered(spectrum), color=color))
        std = np.sort(np.asarray(each.std))[::-1] / max(each.balance.rms, 1e-30)
        spreads.append(Series(model, _numbered(np.maximum(std, 1e-8)), color=color))
        kurtosis = np.sort([value for value in each.kurtosis if value is not None])[::-1]
        tails.append(Series(model, _numbered(kurtosis), color=color))
    plots = [
        plot("Share of the variance", spectra, x_label="principal direction", y_logarithmic=True),
        plot("Standard deviation over RMS", spreads, x_label="channel, in descending order"),
        plot("Excess kurtosis", tails, x_label="channel, in descending order", y_logarithmic=False),
    ]
    rows = [(model, colors[model], format_latents(each)) for model, each in found.items()]
    note = (
        f'<p class="note">{LATENTS_NOTE} Effective rank is the number of directions of equal variance with the same '
        "entropy. Excess kurtosis is 0 for a Gaussian channel, −1.2 for a uniform one.</p>"
    )
    return f'{note}{table(LATENTS_HEADING, rows)}<div class="charts">{"".join(plots)}</div>'


def _rate_plot(
    evaluation: Evaluation, metric: MetricInfo, rates: Mapping[str, float], label: str, colors: Mapping[str, int]
) -> str:
    means = evaluation.means
    models = [s for s in evaluation.systems if s.name in rates and not s.reference]
    series = list(_references(evaluation, metric, rates))
    for system in models:
        mean = means[system.name][metric.name]
        series.append(_intervals(system.name, [rates[system.name]], (mean,), colors[system.name], "points"))
    distinct = sorted(set(rates.values()))
    wide = distinct[-1] / distinct[0] > 1.5
    ticks = None if wide else [(rate, f"{rate:,.4g}") for rate in distinct[:: -(-len(distinct) // 4)]]
    return plot(metric.title, series, x_label=label, x_logarithmic=True, x_ticks=ticks)


def _references(evaluation: Evaluation, metric: MetricInfo, rates: Mapping[str, float]) -> Iterator[Series]:
    def mean(system: System) -> float:
        return evaluation.means[system.name][metric.name].mean

    given = [s for s in evaluation.systems if s.reference and s.name in rates]
    curve = sorted((rates[s.name], mean(s)) for s in given if s.bit_rate is None)
    if len(curve) > 1:
        yield Series("references", np.asarray(curve), style="dashes")
    for system in given:
        if len(curve) == 1 or system.bit_rate is not None:
            yield Series(system.name, np.asarray([[rates[system.name], mean(system)]]), style="points")
    for system in evaluation.systems:
        if system.reference and system.name == _NOISE:
            yield Series(system.name, np.asarray([[0.0, mean(system)]]), style="level")


def _intervals(
    name: str, positions: list[Any], intervals: tuple[Interval, ...], color: int, style: Any = "line"
) -> Series:
    points = np.asarray([(position, each.mean) for position, each in zip(positions, intervals)], np.float64)
    low, high = (np.asarray([getattr(each, end) for each in intervals]) for end in ("low", "high"))
    return Series(name, points, low, high, color, style)


def _numbered(values: Any) -> Any:
    return np.stack([np.arange(1.0, len(values) + 1), np.asarray(values, np.float64)], axis=1)


def _title(metric: str) -> str:
    """Heading of a metric if it is registered, else its name."""
    try:
        built = lookup(metric, ("metric",))().build(sample_rate=48_000)
    except PartitaError:
        return metric
    return MetricInfo(built.name, built.label, built.unit, built.better).title
