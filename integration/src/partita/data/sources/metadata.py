"""Metadata of audio files: the rows of metadata.csv and metadata.jsonl, each matched with its file."""

import csv
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from partita_core import PartitaError, parse_json, short_repr, suggest

from partita.data.audio.files import SUFFIXES
from partita.data.notes import counted, note

from .listing import UNREAD

METADATA = "metadata.csv"

Row = dict[str, Any]


def _whole_number(cell: Any) -> int:
    number = int(cell)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{short_repr(number)} is larger than 64 bits hold")
    return number


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "duration_s": float,
    "tempo": float,
    "sample_rate": _whole_number,
    "channels": _whole_number,
}
"""Columns that hold numbers; everything else is text, also where it looks like a number."""


def described(folder: Path, tables: Iterable[str], files: list[str]) -> dict[str, Row]:
    """The rows of all metadata of a folder, by the file that each describes; what matches no file is noted.

    A row names its file relative to the folder that the metadata lies in. Where no file is called just so, it is found
    by a name that is equal but for `./`, backslashes, case, Unicode normalization or the suffix, if there is only one.
    Of two rows for a file the cells of the later one count, and those of a folder further down.

    Args:
        folder: the data set.
        tables: the metadata files in it, relative to it.
        files: its audio files, likewise, with forward slashes.

    Raises:
        PartitaError: metadata cannot be read, or has no column `file_name`.
    """
    found: dict[str, Row] = {}
    places: dict[str, str] = {}  # of the metadata that described a file last
    names = _Names(folder, files)
    for table in sorted(tables, key=lambda name: (name.count("/"), name)):
        place = posixpath.dirname(table)
        rows = list(_read(folder / table))
        exact = {name for row in rows if (name := posixpath.join(place, row["file_name"])) in names.all}
        own: dict[str, Row] = {}
        lost, several, again = [], [], []
        for row in rows:
            called = row["file_name"]
            matches = names.matches(posixpath.join(place, called), exact)
            if len(matches) != 1:
                (several if matches else lost).append(called)
                continue
            row = {key: value for key, value in row.items() if key != "file_name"}
            if own.get(matches[0], row) != row:
                again.append(called)
            own[matches[0]] = own.get(matches[0], {}) | row
        _note_rows(folder / table, len(rows), lost, several, again)
        beside = [name for name, row in own.items() if places.get(name) == place and _differ(found[name], row)]
        if beside:
            note(f"{folder / table}: other cells, which count, than other metadata beside it for {counted(beside)}")
        for name, row in own.items():
            places[name], known = place, found.setdefault(name, {})
            known |= {key: value for key, value in row.items() if value is not None or key not in known}
    return found


def _differ(one: Row, other: Row) -> bool:
    return any(value is not None and one.get(key) not in (None, value) for key, value in other.items())


class _Names:
    """Audio files by their names, and by what is left of these without spelling."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self._folder, self.all = f"{folder.absolute().as_posix()}/", set(files)
        self._spelled: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for file in files:
            key = _key(file)
            self._spelled.setdefault(key, []).append(file)
            self._stems.setdefault(_stem(key), []).append(file)

    def matches(self, name: str, taken: set[str]) -> list[str]:
        """The files that a row may mean, of which `taken` are described by their very names."""
        if name in self.all:
            return [name]
        key = _key(name.removeprefix(self._folder))
        for found in (self._spelled.get(key), self._stems.get(_stem(key))):
            free = [file for file in found or () if file not in taken]
            if free:
                return free
        return []


def _key(name: str) -> str:
    return normalize("NFC", posixpath.normpath(name.replace("\\", "/")).casefold())


def _stem(key: str) -> str:
    stem, suffix = posixpath.splitext(key)
    return stem if suffix in SUFFIXES or suffix in UNREAD else key


def _note_rows(table: Path, total: int, lost: list[str], several: list[str], again: list[str]) -> None:
    said = []
    if lost:
        said.append(f"no file for {counted(lost)}")
    if several:
        said.append(f"several files and none of that very name for {counted(several)}")
    if again:
        said.append(f"a file again, with other cells, which count, in {counted(again)}")
    if said:
        note(f"{table}: of {total} rows, {'; '.join(said)}")


def _read(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from (
                _csv_rows(csv.DictReader(file, strict=True)) if path.suffix.lower() == ".csv" else _json_rows(file)
            )
    except PartitaError as error:
        raise PartitaError(f"{path}: {error}") from None
    except (csv.Error, OSError, OverflowError, ValueError) as error:
        raise PartitaError(f"{path}: cannot be read ({error})") from None


def _csv_rows(reader: csv.DictReader) -> Iterator[Row]:
    columns = reader.fieldnames or ()
    if "file_name" not in columns:
        raise PartitaError(f"has no column file_name; {suggest('file_name', columns)}")
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than the header")
        yield _checked(row, reader.line_num)


def _json_rows(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except PartitaError as error:
            raise PartitaError(f"line {number} is {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is {short_repr(row)}, not an object")
        if "file_name" not in row:
            raise PartitaError(f"line {number} has no key file_name; {suggest('file_name', row)}")
        yield _checked(row, number)


def _checked(row: Mapping[str, Any], line: int) -> Row:
    if row["file_name"] in ("", None):
        raise ValueError(f"line {line} has no file_name")
    return {key: cell(key, value) for key, value in row.items()}


def cell(column: str, value: Any) -> Any:
    """A cell as its column holds it: a number, or text; empty ones are None."""
    if value is None or value == "":
        return None
    if column in NUMBERS:
        try:
            return NUMBERS[column](value)
        except TypeError:
            raise ValueError(f"{column} is {short_repr(value)}, which is no number") from None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
