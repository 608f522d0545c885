"""Classification tasks of probes: rows of a data set and their classes in a column."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError, suggest

from partita.data.messages import warn_once
from partita.data.where import NoMatchingRowsError, meets, parse_where

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


def open_tasks(data: str, *, column: str, where: str = "") -> tuple[dict[str, "Dataset"], list[LabelTask]]:
    """Open the splits of a data set and find their tasks.

    Args:
        data: data set with the splits "train" and "test", as for `open_dataset`.
        column: column of the classes.
        where: conditions `COLUMN=VALUE`, joined by commas, that rows must meet, which then are one task.

    Returns:
        Split -> its matching rows, and the tasks of `find_tasks`, whose items are indices of these rows.

    Raises:
        PartitaError: train or test is missing or has no matching row, the rows have no audio, a column is missing, or
            as `find_tasks`.
    """
    from partita.data import dataset_splits, open_dataset

    splits = {split: open_dataset(data, split, where=where) for split in ("train", "test")}
    check_columns(splits["train"], column, data)
    if "validation" in dataset_splits(data):  # else the last epoch is the one that counts
        try:
            splits["validation"] = open_dataset(data, "validation", where=where)
        except NoMatchingRowsError as error:
            warn_once(f"{error}; probes are selected by their last epoch")
    rows = {name: without_audio(split) for name, split in splits.items()}
    return splits, find_tasks(rows, column=column, name=", ".join(parse_where(where).values()))


def without_audio(dataset: "Dataset") -> list[dict[str, Any]]:
    """Rows of a data set without their audio."""
    return dataset.remove_columns("audio").to_list()


def check_columns(dataset: "Dataset", column: str, data: str) -> None:
    """Check that rows have audio and a column.

    Raises:
        PartitaError: there is no audio, or no such column; the message names the nearest columns.
    """
    known = [name for name in dataset.column_names if name != "audio"]
    if len(known) == len(dataset.column_names):
        raise PartitaError(f"{data}: has no column audio; probes need audio, not latents")
    if column not in known:
        raise PartitaError(f"{data}: has no column {column!r}; {suggest(column, known)}")


def find_tasks(rows: Mapping[str, Rows], *, column: str, name: str = "") -> list[LabelTask]:
    """Find the tasks in the rows of each split.

    With a name, all rows are one task. Without, there is one per value of the column `task`, if it exists; values with
    fewer than two classes, or without a test item, are skipped.

    Args:
        rows: split -> its rows; "train" and "test" are required.
        column: column of the classes; rows in which it is empty are left out.
        name: name of the only task; "" for tasks by the column `task`.

    Raises:
        PartitaError: no task has two classes and a test item, or the column holds real numbers instead of classes.
    """
    if name or not any("task" in row for row in rows["train"]):
        name = name or column
        task = _task(name, rows, column, {})
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


def _task(name: str, rows: Mapping[str, Rows], column: str, conditions: Mapping[str, str]) -> LabelTask:
    labeled = {
        split: [
            (index, _label(row[column], column))
            for index, row in enumerate(table)
            if meets(row, conditions) and row.get(column) not in (None, "")
        ]
        for split, table in rows.items()
    }
    classes = sorted({label for _, label in labeled["train"]})
    number = {label: i for i, label in enumerate(classes)}
    items = {
        split: tuple((index, number[label]) for index, label in found if label in number)
        for split, found in labeled.items()
    }
    matching = [row for table in rows.values() for row in table if meets(row, conditions)]
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
