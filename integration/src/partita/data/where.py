"""Row filters of a data set: conditions `column=value` on its columns."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from partita_core import PartitaError, shorten, suggest

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    Rows = TypeVar("Rows", Dataset, IterableDataset)
else:
    Rows = TypeVar("Rows")

# Distinct values of a column that an error message lists.
_MAX_LISTED = 12


class NoMatchingRowsError(PartitaError):
    """No row of a data set meets the conditions."""


def parse_where(text: str) -> dict[str, str]:
    """Parse conditions joined by commas, as `task=read_speech,speaker=12`, to a value per column.

    Raises:
        PartitaError: a condition is not of the form COLUMN=VALUE, or a column is given twice.
    """
    conditions: dict[str, str] = {}
    for part in text.split(",") if text.strip() else ():
        column, equals, value = (piece.strip() for piece in part.partition("="))
        if not (column and equals and value):
            raise PartitaError(f"where: {part.strip()!r} is not a condition; write COLUMN=VALUE,COLUMN=VALUE")
        if column in conditions:
            raise PartitaError(f"where: the column {column!r} is given twice; give one value")
        conditions[column] = value
    return conditions


def filter_rows(dataset: Rows, where: str, *, name: str = "the data set") -> Rows:
    """Keep the rows whose columns have the given values.

    Numbers are compared as numbers (`tempo=120` matches 120.0), class labels by their names, and text as it is. A row
    without a value does not match.

    Args:
        dataset: a data set or a stream; a stream is filtered while it is read.
        where: conditions, all of which a row must meet (see `parse_where`); "" keeps all rows.
        name: name of the data set in error messages.

    Raises:
        NoMatchingRowsError: no row is left; of a stream, this shows when it is read.
        PartitaError: a condition cannot be parsed, a column does not exist, or a value does not fit its column.
    """
    from datasets import Dataset

    conditions = parse_where(where)
    if not conditions:
        return dataset
    features: Mapping[str, Any] = dataset.features or {}
    for column in conditions:
        if column not in features:
            raise PartitaError(f"{name}: there is no column {column!r} to filter by; {suggest(column, features)}")
    wanted = {column: _parse_value(column, value, features[column]) for column, value in conditions.items()}
    if not isinstance(dataset, Dataset):
        return dataset.filter(partial(_matches, tuple(wanted.values())), input_columns=list(wanted))
    table: Any = dataset.select_columns(list(wanted)).with_format(None)[:]
    values = zip(*(table[column] for column in wanted))
    rows = [row for row, found in enumerate(values) if _matches(tuple(wanted.values()), *found)]
    if not rows:
        raise NoMatchingRowsError(f"{name}: {_explain(table, wanted, features, conditions)}")
    return dataset.select(rows)


def meets(row: Mapping[str, Any], conditions: Mapping[str, str]) -> bool:
    """Check one row against parsed conditions, for rows whose columns have no declared types.

    Values are compared as in `filter_rows`, by their own types; class labels are integers here.
    """
    return all(_equals(row.get(column), value) for column, value in conditions.items())


def _equals(found: Any, text: str) -> bool:
    if isinstance(found, bool):
        return text == str(found).lower()
    if isinstance(found, (int, float)):
        try:
            return found == _number(text)
        except ValueError:
            return False
    return found == text


def _number(text: str) -> int | float:
    """The number that a text stands for; integers are exact, also above 2**53."""
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _matches(wanted: tuple[Any, ...], *found: Any) -> bool:
    return all(value == one for one, value in zip(wanted, found))


def _parse_value(column: str, text: str, feature: Any) -> Any:
    """The value of a column, as its rows hold it, that a text stands for."""
    from datasets import ClassLabel, Value

    if isinstance(feature, ClassLabel):
        if text not in feature.names:
            raise PartitaError(
                f"where: {text!r} is not a class of the column {column!r}; {suggest(text, feature.names)}"
            )
        return feature.names.index(text)
    kind = feature.dtype if isinstance(feature, Value) else ""
    if kind in ("string", "large_string", "string_view", "null"):
        return text
    parse: Callable[[str], Any]
    if kind == "bool":
        parse = {"true": True, "false": False}.__getitem__
    elif kind.startswith(("int", "uint", "float")):
        parse = float if kind.startswith("float") else _number
    else:
        raise PartitaError(f"where: the column {column!r} holds {kind or 'no single values'}, not numbers or text")
    try:
        return parse(text)
    except (KeyError, ValueError):
        raise PartitaError(f"where: the column {column!r} holds {kind} values, and {text!r} is not one") from None


def _explain(
    table: Mapping[str, list[Any]],
    wanted: Mapping[str, Any],
    features: Mapping[str, Any],
    conditions: Mapping[str, str],
) -> str:
    """Why no row is left: the first column without the wanted value, or else their combination."""
    count = len(next(iter(table.values())))
    for column, value in wanted.items():
        if value not in table[column]:
            names = getattr(features[column], "names", None)
            held = dict.fromkeys(names[one] if names else one for one in table[column] if one is not None)
            listed = ", ".join(map(str, list(held)[:_MAX_LISTED])) + (", ..." if len(held) > _MAX_LISTED else "")
            known = shorten(listed, 400) or "nothing"
            return f"none of {count} rows has {column}={conditions[column]}; the column {column!r} holds {known}"
    every = ",".join(f"{column}={value}" for column, value in conditions.items())
    return f"none of {count} rows has {every} together; each of these values occurs, but not in one row"
