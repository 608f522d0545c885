"""Results of an evaluation: a record of plain values, written as JSON, CSV and Markdown."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from partita_core import atomic_write, escape_unprintable, from_dict, read_json, to_dict, write_json

from .bootstrap import Interval
from .latent_statistics import LatentStatistics

LATENTS_NOTE = "Latent vectors over the clips; variances per channel are relative to their mean."
LATENTS_HEADING = (
    "vectors",
    "RMS",
    "effective rank",
    "dead channels",
    "min variance",
    "max variance",
    "excess kurtosis",
)


@dataclass(frozen=True)
class MetricInfo:
    """Name, printed label, unit and better direction of a metric."""

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"]

    @property
    def title(self) -> str:
        """Column heading: label, unit, and an arrow in the better direction."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.label}{unit} {'↓' if self.better == 'lower' else '↑'}"


@dataclass(frozen=True)
class Speed:
    """Seconds of audio per second of computation, measured on the machine that ran the evaluation."""

    encode: float
    decode: float


@dataclass(frozen=True)
class System:
    """One row of the table: a model, files that were decoded by another codec, or a reference.

    Attributes:
        name: name in the tables.
        reference: True for references, which are compared with the others, but not with each other.
        floats_per_second: real numbers per second of audio; None where that is undefined.
        bit_rate: bits per second of the codes, or of a classical codec's packets over the clips; None for continuous
            latents, and where it is unknown.
        speed: speed of encoding and decoding; None for all but models.
    """

    name: str
    reference: bool
    floats_per_second: float | None = None
    bit_rate: float | None = None
    speed: Speed | None = None


@dataclass(frozen=True)
class Clip:
    """Name of a clip, the layout it was encoded in, and its length in seconds."""

    name: str
    layout: str
    seconds: float


@dataclass(frozen=True)
class Difference:
    """Mean difference `system - baseline` of a metric over the same clips, with its interval."""

    system: str
    baseline: str
    metric: str
    difference: Interval

    @property
    def clear(self) -> bool:
        """True if the interval excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class FrechetDistances:
    """Distances of each system's set of clips from the originals, in the space of one embedder.

    Attributes:
        embedder: name of the embedder; distances of different embedders are not comparable.
        dim: dimension of the embeddings.
        clips: number of clips per system.
        distances: system -> squared Frechet distance; lower is better.
    """

    embedder: str
    dim: int
    clips: int
    distances: dict[str, float]

    @property
    def name(self) -> str:
        """Name of the column."""
        return f"Frechet [{self.embedder}]"

    @property
    def warning(self) -> str | None:
        """Warning about distances of no more clips than dimensions; None if there are more."""
        if self.clips > self.dim:
            return None
        return (
            f"{self.name}: {self.clips} clips in {self.dim} dimensions. Covariances are not of full rank and distances "
            "are biased upwards; compare them only over these clips."
        )


@dataclass(frozen=True)
class Evaluation:
    """Metrics of some systems over some clips.

    Attributes:
        systems: models first, then references.
        metrics: columns of the table.
        clips: clips in the order in which they were evaluated.
        scores: system -> metric -> one value per clip; None for clips that the metric cannot measure.
        means: system -> metric -> mean over clips with its interval.
        skipped: metric -> clip -> reason why the clip cannot be measured, for all systems alike.
        differences: differences between models, and of each model from each reference, paired by clip.
        settings: sample rate, seed, bootstrap, and the metrics' Configs.
        frechet: distances between sets of clips, one record per embedder.
        latents: model -> statistics of its latents over the clips.
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
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_dict(self, *, speeds: bool = False) -> dict[str, Any]:
        """Return the record as plain values for JSON; equal evaluations give equal records.

        Args:
            speeds: include the measured speeds, the only values that differ from run to run.
        """
        return to_dict(self if speeds else self._without_speeds())

    def to_json(self, path: str | Path, *, speeds: bool = False) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_json(path, self.to_dict(speeds=speeds))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `to_json` wrote.

        Raises:
            PartitaError: the file is not an evaluation.
        """
        return from_dict(cls, read_json(path), where=str(path))

    def to_csv(self, path: str | Path) -> None:
        """Write the table of values per clip as CSV, one line per clip and system, atomically.

        A Frechet distance belongs to a set of clips and is repeated in each of the system's lines. Cells of clips that
        a metric cannot measure are empty.
        """
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        names = [metric.name for metric in self.metrics]
        table.writerow(["clip", "layout", "seconds", "system", *names, *(each.name for each in self.frechet)])
        for index, clip in enumerate(self.clips):
            for system in self.systems:
                values = [self.scores[system.name][name][index] for name in names]
                values += [each.distances[system.name] for each in self.frechet]
                cells = ("" if value is None else repr(value) for value in values)
                labels = (_csv_text(clip.name), clip.layout, f"{clip.seconds:.6f}", _csv_text(system.name))
                table.writerow([*labels, *cells])
        with atomic_write(path) as aside:
            aside.write_text(text.getvalue(), encoding="utf-8", newline="")

    def to_markdown(self) -> str:
        """Return Markdown tables of means with intervals (best model in bold), differences and latent statistics."""
        confidence = f"{100 * self.settings['confidence']:g} %"
        clips = f"{len(self.clips)} clip{'s' if len(self.clips) != 1 else ''}"
        lines = [f"Means over {clips} with {confidence} bootstrap intervals.", ""]
        heading = ["system", *(metric.title for metric in self.metrics), *(f"{each.name} ↓" for each in self.frechet)]
        heading += ["numbers/s", "kbit/s", "encode, x real time", "decode, x real time"]
        rows = [[_cell(system.name), *self._values(system), *format_rates(system)] for system in self.systems]
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
        """Write `to_markdown`, atomically."""
        with atomic_write(path) as aside:
            aside.write_text(self.to_markdown(), encoding="utf-8")

    def best(self, metric: MetricInfo) -> str | None:
        """Return the model with the best mean of `metric`; None for fewer than two models."""
        models = [system.name for system in self.systems if not system.reference]
        sign = 1 if metric.better == "higher" else -1
        return max(models, key=lambda name: sign * self.means[name][metric.name].mean) if len(models) > 1 else None

    @property
    def notes(self) -> list[str]:
        """Notes on the values, a sentence or two each."""
        count, found = len(self.clips), []
        if self.settings.get("folded_to_mono"):
            found.append("Stereo is folded to mono, because one of the models supports only mono.")
        if aligned := self.settings.get("aligned"):
            names = ", ".join(aligned)
            found.append(f"Files of {names} are shifted by the delay of highest correlation, at most 50 ms.")
        if linear := self.settings.get("linear"):
            found.append(f"Linear codecs are fitted to {linear['seconds']:,.0f} s of the split {linear['split']}.")
        if count == 1:
            found.append("Only one clip: its intervals have no width and no meaning.")
        labels = {metric.name: metric.label for metric in self.metrics}
        for metric, reasons in self.skipped.items():
            clip, reason = next(iter(reasons.items()))
            measured = f"{labels[metric]} is measured on {count - len(reasons)} of {count} clips."
            found.append(f"{measured} {clip}: {reason}.")
        return [*found, *filter(None, (each.warning for each in self.frechet))]

    def _without_speeds(self) -> Self:
        return replace(self, systems=tuple(replace(system, speed=None) for system in self.systems))

    def _values(self, system: System) -> Iterator[str]:
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
    """Format a mean and its interval as `1.23 [1.10, 1.35]`, with the decimals that suit the largest number."""
    mean, low, high = format_numbers(interval.mean, interval.low, interval.high, sign=sign)
    return f"{mean} [{low}, {high}]"


def format_numbers(*numbers: float, sign: bool = False) -> list[str]:
    """Format numbers with the decimals that suit the largest; `sign` adds a plus to positive ones."""
    size = max(map(abs, numbers))
    digits = 1 if size >= 100 else 2 if size >= 10 else 3
    plus = "+" if sign and size else ""
    return [f"{number + 0.0:{plus}.{digits}f}".replace("-", "−") for number in numbers]


def format_rates(system: System) -> list[str]:
    """Format numbers per second, kbit per second, encoding and decoding speed; "–" where undefined."""
    speed = system.speed
    return [
        "–" if system.floats_per_second is None else f"{system.floats_per_second:,.0f}",
        "–" if system.bit_rate is None else f"{system.bit_rate / 1000:.2f}",
        "–" if speed is None else _speed(speed.encode),
        "–" if speed is None else _speed(speed.decode),
    ]


def format_latents(found: LatentStatistics) -> list[str]:
    """Format latent statistics as the cells below `LATENTS_HEADING`."""
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


def is_numbered(name: str) -> bool:
    """Return True for a metric of one level or offset among many, as `usage_3`."""
    return re.search(r"_\d+$", name) is not None


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _cell(text: str) -> str:
    return escape_unprintable(text).replace("|", "\\|")


def _csv_text(text: str) -> str:
    """Escape a name that spreadsheets would interpret as a formula."""
    text = escape_unprintable(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _markdown_table(heading: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [f"| {' | '.join(row)} |" for row in (heading, rule, *rows)]
