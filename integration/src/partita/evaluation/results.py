"""What an evaluation found: a record of plain values that JSON, CSV, Markdown and the report are made from."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from partita_core import atomic_write, escape_unprintable, from_dict, read_json, to_dict, write_json

from .bootstrap import Interval
from .latent_statistics import LatentStatistics

LATENTS_NOTE = "Latent vectors over the clips; variances of channels are over their mean."
LATENTS_HEADING = ("vectors", "RMS", "effective rank", "dead channels", "least variance", "most", "excess kurtosis")


@dataclass(frozen=True)
class MetricInfo:
    """A metric: its name, how it is printed, the unit of its figures, and which way is better."""

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"]

    @property
    def title(self) -> str:
        """The heading of its column: label, unit, and an arrow to the better side."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.label}{unit} {'↓' if self.better == 'lower' else '↑'}"


@dataclass(frozen=True)
class Speed:
    """Seconds of audio that one second of computing takes in, measured on the machine that ran the evaluation."""

    encode: float
    decode: float


@dataclass(frozen=True)
class System:
    """One row of the table: a model, or a reference.

    Attributes:
        name: as it is called in the tables.
        reference: whether it is one of the references rather than a model.
        floats_per_second: real numbers that stand for a second of audio; None where the question makes no sense.
        bit_rate: bits a second of the codes; None for continuous latents.
        speed: of encoding and decoding; None for references.
    """

    name: str
    reference: bool
    floats_per_second: float | None = None
    bit_rate: float | None = None
    speed: Speed | None = None


@dataclass(frozen=True)
class Clip:
    """One clip: its name, the layout it was encoded in, and its length in seconds."""

    name: str
    layout: str
    seconds: float


@dataclass(frozen=True)
class Difference:
    """How a system differs from another over the same clips: the mean of `system - baseline`, with its interval."""

    system: str
    baseline: str
    metric: str
    difference: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class FrechetDistances:
    """How far the clips of each system, as a set, are from the originals, as one embedder hears them.

    Attributes:
        embedder: what makes a vector of a clip; without it the figures mean nothing.
        dim: of the vectors.
        clips: how many vectors there are of each system.
        distances: system -> the squared Frechet distance; lower is better.
    """

    embedder: str
    dim: int
    clips: int
    distances: dict[str, float]

    @property
    def name(self) -> str:
        """As its column is called."""
        return f"Frechet [{self.embedder}]"

    @property
    def warning(self) -> str | None:
        """What is to be known of a distance of fewer clips than dimensions; None where there are more."""
        if self.clips > self.dim:
            return None
        return (
            f"{self.name}: {self.clips} clips in {self.dim} dimensions. Their covariances are not of full rank and the "
            "distances too large; compare them for these clips alone."
        )


@dataclass(frozen=True)
class Evaluation:
    """Figures of some systems over some clips.

    Attributes:
        systems: models first, then references.
        metrics: the columns.
        clips: in the order they came.
        scores: system -> metric -> one figure a clip; None of a clip that the metric refuses.
        means: system -> metric -> the mean over clips with its interval.
        refused: metric -> clip -> why it is not measured there, for no system.
        differences: between the models, and of each model from each reference, paired by clip.
        settings: sample rate, seed, bootstrap, and the metrics' Configs.
        frechet: distances between sets of clips, one for each embedder.
        latents: model -> what its latents look like over the clips.
    """

    systems: tuple[System, ...]
    metrics: tuple[MetricInfo, ...]
    clips: tuple[Clip, ...]
    scores: dict[str, dict[str, tuple[float | None, ...]]]
    means: dict[str, dict[str, Interval]]
    differences: tuple[Difference, ...]
    settings: dict[str, Any]
    frechet: tuple[FrechetDistances, ...] = ()
    latents: dict[str, LatentStatistics] = field(default_factory=dict)
    refused: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_dict(self, *, speeds: bool = False) -> dict[str, Any]:
        """The record as what JSON can hold; equal evaluations give equal records.

        Args:
            speeds: keep the measured speeds, which are the one thing that differs from run to run.
        """
        return to_dict(self if speeds else self._without_speeds())

    def to_json(self, path: str | Path, *, speeds: bool = False) -> None:
        """Writes `to_dict` as JSON, whole or not at all."""
        write_json(path, self.to_dict(speeds=speeds))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            PartitaError: it is no such file.
        """
        return from_dict(cls, read_json(path), where=str(path))

    def to_csv(self, path: str | Path) -> None:
        """Writes the per-clip table, one line for each clip and system, whole or not at all.

        A distance between sets has no figure for a clip: that of the system is in each of its lines. Where a metric
        refuses a clip there is none.
        """
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        names = [metric.name for metric in self.metrics]
        table.writerow(["clip", "layout", "seconds", "system", *names, *(each.name for each in self.frechet)])
        for index, clip in enumerate(self.clips):
            for system in self.systems:
                figures = [self.scores[system.name][name][index] for name in names]
                figures += [each.distances[system.name] for each in self.frechet]
                cells = ("" if figure is None else repr(figure) for figure in figures)
                named = (_csv_text(clip.name), clip.layout, f"{clip.seconds:.6f}", _csv_text(system.name))
                table.writerow([*named, *cells])
        with atomic_write(path) as aside:
            aside.write_text(text.getvalue(), encoding="utf-8", newline="")

    def to_markdown(self) -> str:
        """The table of means with intervals, the best model of each column in bold, differences, and the latents."""
        confidence = f"{100 * self.settings['confidence']:g} %"
        clips = f"{len(self.clips)} clip{'s' if len(self.clips) != 1 else ''}"
        lines = [f"Means over {clips} with {confidence} bootstrap intervals.", ""]
        heading = ["system", *(metric.title for metric in self.metrics), *(f"{each.name} ↓" for each in self.frechet)]
        heading += ["numbers/s", "kbit/s", "encode, x real time", "decode, x real time"]
        rows = [[_cell(system.name), *self._figures(system), *format_rates(system)] for system in self.systems]
        lines += _markdown_table(heading, rows)
        for note in self.notes:
            lines += ["", note]
        if self.differences:
            lines += ["", f"Paired differences over the same clips, with {confidence} intervals.", ""]
            lines += _markdown_table(["difference", *(m.title for m in self.metrics)], list(self._difference_rows()))
        if self.latents:
            lines += ["", LATENTS_NOTE, ""]
            rows = [[_cell(name), *format_latents(found)] for name, found in self.latents.items()]
            lines += _markdown_table(["latents", *LATENTS_HEADING], rows)
        return "\n".join(lines) + "\n"

    def write_markdown(self, path: str | Path) -> None:
        """Writes `to_markdown`, whole or not at all."""
        with atomic_write(path) as aside:
            aside.write_text(self.to_markdown(), encoding="utf-8")

    def best(self, metric: MetricInfo) -> str | None:
        """The model with the best mean of `metric`; None where there are not two to choose from."""
        models = [system.name for system in self.systems if not system.reference]
        sign = 1 if metric.better == "higher" else -1
        return max(models, key=lambda name: sign * self.means[name][metric.name].mean) if len(models) > 1 else None

    @property
    def notes(self) -> list[str]:
        """What is to be known of the figures, a sentence or two each."""
        count, found = len(self.clips), []
        if self.settings.get("folded_to_mono"):
            found.append("Stereo is folded to mono, since that is all that one of the models takes.")
        if count == 1:
            found.append("One clip: its intervals have no width, and say nothing.")
        labels = {metric.name: metric.label for metric in self.metrics}
        for metric, reasons in self.refused.items():
            clip, reason = next(iter(reasons.items()))
            how_many = f"{labels[metric]} is over {count - len(reasons)} of {count} clips."
            found.append(f"{how_many} Of {clip}: {reason}.")
        return [*found, *filter(None, (each.warning for each in self.frechet))]

    def _without_speeds(self) -> Self:
        return replace(self, systems=tuple(replace(system, speed=None) for system in self.systems))

    def _figures(self, system: System) -> Iterator[str]:
        for metric in self.metrics:
            text = format_interval(self.means[system.name][metric.name])
            yield f"**{text}**" if self.best(metric) == system.name else text
        for each in self.frechet:
            yield format_numbers(each.distances[system.name])[0]

    def _difference_rows(self) -> Iterator[list[str]]:
        pairs = dict.fromkeys((each.system, each.baseline) for each in self.differences)
        found = {(each.system, each.baseline, each.metric): each.difference for each in self.differences}
        for system, baseline in pairs:
            cells = [format_interval(found[system, baseline, m.name], sign=True) for m in self.metrics]
            yield [_cell(f"{system} − {baseline}"), *cells]


def format_interval(interval: Interval, *, sign: bool = False) -> str:
    """A mean and its interval as `1.23 [1.10, 1.35]`, all with the digits that suit the largest."""
    mean, low, high = format_numbers(interval.mean, interval.low, interval.high, sign=sign)
    return f"{mean} [{low}, {high}]"


def format_numbers(*numbers: float, sign: bool = False) -> list[str]:
    """Figures that belong together, with as many digits as suit the largest; `sign` marks positive ones too."""
    size = max(map(abs, numbers))
    digits = 1 if size >= 100 else 2 if size >= 10 else 3
    plus = "+" if sign and size else ""
    return [f"{number + 0.0:{plus}.{digits}f}".replace("-", "−") for number in numbers]


def format_rates(system: System) -> list[str]:
    """Numbers a second, kbit a second, and encoding and decoding speed, "–" where there is none."""
    speed = system.speed
    return [
        "–" if system.floats_per_second is None else f"{system.floats_per_second:,.0f}",
        "–" if system.bit_rate is None else f"{system.bit_rate / 1000:.2f}",
        "–" if speed is None else _speed(speed.encode),
        "–" if speed is None else _speed(speed.decode),
    ]


def format_latents(found: LatentStatistics) -> list[str]:
    """The cells beneath `LATENTS_HEADING`."""
    balance, dim = found.balance, len(found.std)
    return [
        f"{found.vectors:,}",
        f"{balance.rms:#.3g}",
        f"{balance.effective_rank:.1f} of {dim}",
        str(balance.dead),
        f"{balance.variance_min:.2g}",
        f"{balance.variance_max:.2g}",
        f"{balance.kurtosis:.2g}".replace("-", "−"),
    ]


def _speed(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"


def _cell(text: str) -> str:
    return escape_unprintable(text).replace("|", "\\|")


def _csv_text(text: str) -> str:
    """A name as a cell that no spreadsheet takes for a formula."""
    text = escape_unprintable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _markdown_table(heading: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [f"| {' | '.join(row)} |" for row in (heading, rule, *rows)]
