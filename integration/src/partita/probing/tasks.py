"""Classification tasks of probes: rows of a data set and their classes in a column."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError, suggest

from partita.data.messages import warn_once

if TYPE_CHECKING:
    from datasets import Dataset

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class LabelTask:
    """One classification task.

    Attributes:
        name: name of the task.
        classes: classes of the training items, sorted.
        items: split -> (row, class) of its items, without empty splits.
        unknown: number of test items left out, because no training item has their class.
    """

    name: str
    classes: tuple[str, ...]
    items: dict[str, tuple[tuple[int, int], ...]]
    unknown: int


def open_splits(data: str) -> dict[str, "Dataset"]:
    """Open the splits train and test of a data set, and validation if there is one.

    Raises:
        PartitaError: train or test is missing, or the rows have no audio.
    """
    from partita.data import dataset_splits, open_dataset

    found = {split: open_dataset(data, split) for split in ("train", "test")}
    if "audio" not in found["train"].column_names:
        raise PartitaError(f"{data}: has no column audio; probes need audio, not latents")
    if "validation" in dataset_splits(data):  # else the last epoch is the one that counts
        found["validation"] = open_dataset(data, "validation")
    return found


def described(dataset: "Dataset") -> list[dict[str, Any]]:
    """Rows of a data set without their audio."""
    return dataset.remove_columns("audio").to_list()


def check_columns(dataset: "Dataset", columns: Sequence[str], data: str) -> None:
    """Check that columns exist.

    Raises:
        PartitaError: a column is missing; the message names the nearest ones.
    """
    known = [name for name in dataset.column_names if name != "audio"]
    for column in columns:
        if column not in known:
            raise PartitaError(f"{data}: has no column {column!r}; {suggest(column, known)}")


def matches(row: Mapping[str, Any], where: Mapping[str, str]) -> bool:
    """Return True if the columns of `where` have these values; numbers are compared as text."""
    return all(row.get(key) is not None and str(row[key]) == value for key, value in where.items())


def find_tasks(rows: Mapping[str, Rows], *, column: str, where: Mapping[str, str]) -> list[LabelTask]:
    """Find the tasks in the rows of each split.

    With `where`, there is one task, of the rows that match. Without, there is one per value of the column `task`, if it
    exists; values with fewer than two classes, or without a test item, are skipped.

    Args:
        rows: split -> its rows; "train" and "test" are required.
        column: column of the classes; rows in which it is empty are left out.
        where: required values of columns.

    Raises:
        PartitaError: no task has two classes and a test item, or the column holds real numbers instead of classes.
    """
    if where or not any("task" in row for row in rows["train"]):
        name = ", ".join(where.values()) or column
        task = _task(name, rows, column, where)
        if len(task.classes) < 2 or "test" not in task.items:
            raise PartitaError(f"column {column!r} of {name} has {_sizes(task)}; a probe needs at least 2 and 1")
        return [task]
    found = [str(row["task"]) for table in rows.values() for row in table if row.get("task") not in (None, "")]
    without = sum(map(len, rows.values())) - len(found)
    if without:
        warn_once(f"{without} of {sum(map(len, rows.values()))} rows have no task and are left out")
    tasks = []
    for task in (_task(value, rows, column, {"task": value}) for value in sorted(set(found))):
        if len(task.classes) > 1 and "test" in task.items:
            tasks.append(task)
            continue
        warn_once(f"the task {task.name!r} is skipped: it has {_sizes(task)}; a probe needs at least 2 and 1")
    if not tasks:
        raise PartitaError(f"no task has 2 training classes in column {column!r} and 1 test item; name another column")
    return tasks


def _sizes(task: LabelTask) -> str:
    return f"{len(task.classes)} training classes and {len(task.items.get('test', ()))} test items of these"


def _task(name: str, rows: Mapping[str, Rows], column: str, where: Mapping[str, str]) -> LabelTask:
    labeled = {
        split: [
            (index, _label(row[column], column))
            for index, row in enumerate(table)
            if matches(row, where) and row.get(column) not in (None, "")
        ]
        for split, table in rows.items()
    }
    classes = sorted({label for _, label in labeled["train"]})
    number = {label: i for i, label in enumerate(classes)}
    items = {
        split: tuple((index, number[label]) for index, label in found if label in number)
        for split, found in labeled.items()
    }
    matching = [row for table in rows.values() for row in table if matches(row, where)]
    empty = sum(row.get(column) in (None, "") for row in matching)
    if 0 < empty < len(matching):
        warn_once(f"{name}: {empty} of {len(matching)} rows have no {column} and are left out")
    if (lost := len(labeled.get("validation", ())) - len(items.get("validation", ()))) > 0:
        warn_once(f"{name}: {lost} validation items are left out; no training item has their class")
    unknown = len(labeled["test"]) - len(items["test"])
    return LabelTask(name, tuple(classes), {split: found for split, found in items.items() if found}, unknown)


def _label(value: Any, column: str) -> str:
    if isinstance(value, float) or (isinstance(value, str) and _is_fraction(value)):
        raise PartitaError(f"column {column!r} holds real numbers, such as {value}; a probe needs classes")
    return str(value)


def _is_fraction(text: str) -> bool:
    try:
        return not float(text).is_integer()
    except (ValueError, OverflowError):
        return False


def majority(train: Sequence[int], test: Sequence[int]) -> float:
    """Share of test items of the most frequent class of the training items, the smallest class in case of a tie."""
    counts = Counter(train)
    best = min(counts, key=lambda each: (-counts[each], each))
    return sum(label == best for label in test) / len(test)
