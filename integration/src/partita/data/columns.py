"""Metadata columns as numbers in the batch: numeric values, and indices of classes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError, suggest

from .datasets import row_name
from .shards import read_column

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class NumericColumns:
    """Chosen columns of a data set as floats, integers, or class indices.

    Classes are those of a `ClassLabel` column, in its own order, or the distinct values of a string column, in
    alphabetical order, so that an index means the same in every run on the same rows. Of a stream, a string column is
    read once in full for that; `ClassLabel` avoids it.

    Args:
        dataset: data set or stream, as `open_dataset` returns it.
        names: names of the columns.
        classes: class names to use for string columns, as of another split; None for those of the data set.

    Attributes:
        classes: class names of each class column, by index.

    Raises:
        PartitaError: a column does not exist, holds neither numbers nor classes, or lacks a value in some row (a row
            of a stream is checked when it is read).
    """

    def __init__(
        self,
        dataset: "Dataset | IterableDataset",
        names: Sequence[str],
        classes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.classes: dict[str, tuple[str, ...]] = {}
        self._indices: dict[str, dict[Any, int]] = {}  # of class columns: index by the value in a row
        self._types: dict[str, type[int] | type[float]] = {}  # of numeric columns
        self._names = tuple(names)
        for name in self._names:
            self._add(dataset, name, classes or {})

    def numbers(self, row: Mapping[str, Any], index: int) -> dict[str, int | float]:
        """Values of the columns in a row: float for float columns, int for integers and classes.

        Args:
            row: the row.
            index: its number, which names it in error messages.

        Raises:
            PartitaError: a value is missing, or is not one of the classes.
        """
        found: dict[str, int | float] = {}
        for name in self._names:
            value, indices = row.get(name), self._indices.get(name)
            if problem := self._problem(name, value):
                raise PartitaError(f"{row_name(row, index)}: {problem}")
            found[name] = self._types[name](value) if indices is None else indices[value]  # pyright: ignore
        return found

    def _add(self, dataset: Any, name: str, classes: Mapping[str, tuple[str, ...]]) -> None:
        from datasets import ClassLabel, Value

        features: Mapping[str, Any] = dataset.features or {}
        if name not in features:
            raise PartitaError(f"data.columns: there is no column {name!r}; {suggest(name, features)}")
        feature, in_memory = features[name], hasattr(dataset, "__len__")
        kind = feature.dtype if isinstance(feature, Value) else type(feature).__name__
        text = kind in ("string", "large_string", "string_view")
        values = dataset.select_columns([name]).with_format(None)[:][name] if in_memory else []
        if isinstance(feature, ClassLabel):
            self.classes[name] = tuple(feature.names)
            self._indices[name] = {index: index for index in range(len(feature.names))}
        elif text:
            if name not in classes:
                known = values if in_memory else read_column(dataset, name)
                classes = {name: tuple(sorted({value for value in known if not _is_empty(value)}))}
            self.classes[name] = classes[name]
            self._indices[name] = {value: index for index, value in enumerate(classes[name])}
        elif kind.startswith(("int", "uint", "float", "bool")):
            self._types[name] = float if kind.startswith("float") else int
        else:
            raise PartitaError(f"data.columns: the column {name!r} holds {kind}, which is neither numbers nor classes")
        failed = [row for row, value in enumerate(values) if self._problem(name, value)]
        if failed:
            first, problem = row_name(dataset[failed[0]], failed[0]), self._problem(name, values[failed[0]])
            raise PartitaError(f"data.columns: in {len(failed)} of {len(values)} rows, first in {first!r}, {problem}")

    def _problem(self, name: str, value: Any) -> str:
        """Why a value of a column cannot be used; empty if it can."""
        if _is_empty(value):
            return f"the column {name!r} has no value"
        if name in self._indices and value not in self._indices[name]:
            return f"the column {name!r} is {value!r}, which is not one of its {len(self.classes[name])} classes"
        return ""


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value != value  # only NaN differs from itself
