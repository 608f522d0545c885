"""Results of probing: a record of plain values, written as JSON and Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partita_core import to_dict, write_json

from partita.evaluation.bootstrap import Interval
from partita.evaluation.results import Difference


@dataclass(frozen=True)
class ProbeTask:
    """Accuracies of every source in one task, as fractions.

    Attributes:
        name: name of the task.
        classes: names of the classes.
        items: split -> number of items.
        unknown: number of test items left out, because no training item has their class.
        chance: one over the number of classes.
        majority: accuracy of always predicting the most frequent class of the training items.
        scores: source -> per test item, the share of seeds that are correct.
        by_seed: source -> accuracy per seed.
        accuracy: source -> mean over seeds and items, with its interval over items.
        differences: differences between sources, paired by item.
    """

    name: str
    classes: tuple[str, ...]
    items: dict[str, int]
    unknown: int
    chance: float
    majority: float
    scores: dict[str, tuple[float, ...]]
    by_seed: dict[str, tuple[float, ...]]
    accuracy: dict[str, Interval]
    differences: tuple[Difference, ...]

    @property
    def best(self) -> str:
        """Source with the highest accuracy; the first in case of a tie."""
        return max(self.accuracy, key=lambda source: self.accuracy[source].mean)


@dataclass(frozen=True)
class Probing:
    """Accuracies of sources in several tasks.

    Attributes:
        column: column of the classes.
        tasks: tasks in the order of the table's columns.
        settings: settings of the probes and the bootstrap.
    """

    column: str
    tasks: tuple[ProbeTask, ...]
    settings: dict[str, Any]

    def to_json(self, path: str | Path) -> None:
        """Write the record as JSON, atomically; equal results give equal files."""
        write_json(path, to_dict(self))

    def to_markdown(self) -> str:
        """Return Markdown tables of accuracies by source and task (best in bold) and paired differences."""
        confidence, seeds = f"{100 * self.settings['confidence']:g} %", self.settings["seeds"]
        lines = [f"Accuracy in %, mean over {seeds} seeds, with {confidence} bootstrap intervals over test items.", ""]
        heading = [f"{t.name}, {len(t.classes)} classes, {t.items['test']} items" for t in self.tasks]
        lines += markdown_table(["source", *heading], list(self._accuracies()))
        lines += ["", f"Paired differences in percentage points, with {confidence} intervals.", ""]
        lines += markdown_table(["difference", *(task.name for task in self.tasks)], list(self._differences()))
        return "\n".join(lines) + "\n"

    def _accuracies(self) -> Iterator[list[str]]:
        for source in self.tasks[0].accuracy:
            texts = [percent(task.accuracy[source]) for task in self.tasks]
            yield [source, *(f"**{x}**" if t.best == source else x for x, t in zip(texts, self.tasks))]
        yield ["most frequent class", *(f"{100 * task.majority:.1f}" for task in self.tasks)]
        yield ["chance", *(f"{100 * task.chance:.1f}" for task in self.tasks)]

    def _differences(self) -> Iterator[list[str]]:
        for row in zip(*(task.differences for task in self.tasks)):
            yield [f"{row[0].system} − {row[0].baseline}", *(percent(each.difference, sign=True) for each in row)]


def percent(interval: Interval, *, sign: bool = False) -> str:
    """Format a fraction and its interval in percent, as `81.4 [75.0, 88.1]`."""
    numbers = (100 * interval.mean, 100 * interval.low, 100 * interval.high)
    mean, low, high = (f"{round(x, 1) + 0.0:{'+' if sign and x else ''}.1f}".replace("-", "−") for x in numbers)
    return f"{mean} [{low}, {high}]"


def markdown_table(heading: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table, right-aligned but for the first column."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (heading, rule, *rows)]
