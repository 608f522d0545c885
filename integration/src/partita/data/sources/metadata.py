"""Metadata of audio files: rows of metadata.csv and metadata.jsonl, matched with their files."""

import csv
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from partita_core import PartitaError, parse_json, short_repr, suggest

from partita.data.audio.files import SUFFIXES
from partita.data.messages import counted, warn_once

from .listing import UNSUPPORTED

METADATA = "metadata.csv"

Row = dict[str, Any]


def _integer(cell: Any) -> int:
    number = int(cell)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{short_repr(number)} does not fit into 64 bits")
    return number


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "duration_s": float,
    "tempo": float,
    "sample_rate": _integer,
    "channels": _integer,
}
"""Columns of numbers; all others are text, even if it looks like a number."""


def file_metadata(folder: Path, tables: Iterable[str], files: list[str]) -> dict[str, Row]:
    """Metadata rows of a folder by audio file; rows that match no file are reported.

    A row names its file relative to the folder of the metadata. If no file has this exact name, the only file is used
    whose name is equal apart from `./`, backslashes, case, Unicode normalization or the suffix. If a file has several
    rows, cells of later rows win, and cells of metadata in deeper folders.

    Args:
        folder: folder of the data set.
        tables: its metadata files, relative to it.
        files: its audio files, relative to it with forward slashes.

    Raises:
        PartitaError: metadata cannot be read, or has no column `file_name`.
    """
    found: dict[str, Row] = {}
    places: dict[str, str] = {}  # folder of the metadata that described a file last
    names = _Names(folder, files)
    for table in sorted(tables, key=lambda name: (name.count("/"), name)):
        place = posixpath.dirname(table)
        rows = list(_read(folder / table))
        exact = {name for row in rows if (name := posixpath.join(place, row["file_name"])) in names.all}
        own: dict[str, Row] = {}
        lost, several, again = [], [], []
        for row in rows:
            name = row["file_name"]
            matches = names.matches(posixpath.join(place, name), exact)
            if len(matches) != 1:
                (several if matches else lost).append(name)
                continue
            row = {key: value for key, value in row.items() if key != "file_name"}
            if own.get(matches[0], row) != row:
                again.append(name)
            own[matches[0]] = own.get(matches[0], {}) | row
        _report_rows(folder / table, len(rows), lost, several, again)
        differing = [name for name, row in own.items() if places.get(name) == place and _differ(found[name], row)]
        if differing:
            warn_once(f"{folder / table}: overrides cells of other metadata in this folder for {counted(differing)}")
        for name, row in own.items():
            places[name], known = place, found.setdefault(name, {})
            known |= {key: value for key, value in row.items() if value is not None or key not in known}
    return found


def _differ(one: Row, other: Row) -> bool:
    return any(value is not None and one.get(key) not in (None, value) for key, value in other.items())


class _Names:
    """Audio files by their exact names, and by normalized ones."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self._folder, self.all = f"{folder.absolute().as_posix()}/", set(files)
        self._spelled: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for file in files:
            key = _key(file)
            self._spelled.setdefault(key, []).append(file)
            self._stems.setdefault(_stem(key), []).append(file)

    def matches(self, name: str, taken: set[str]) -> list[str]:
        """The files that a row may name, without those in `taken`, which other rows name exactly."""
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
    return stem if suffix in SUFFIXES or suffix in UNSUPPORTED else key


def _report_rows(table: Path, total: int, lost: list[str], several: list[str], again: list[str]) -> None:
    parts = []
    if lost:
        parts.append(f"no file matches {counted(lost)}")
    if several:
        parts.append(f"several files and no exact name match {counted(several)}")
    if again:
        parts.append(f"a later row overrides cells of the same file in {counted(again)}")
    if parts:
        warn_once(f"{table}: of {total} rows, {'; '.join(parts)}")


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
    """A cell in the type of its column, a number or text; None if it is empty."""
    if value is None or value == "":
        return None
    if column in NUMBERS:
        try:
            return NUMBERS[column](value)
        except TypeError:
            raise ValueError(f"{column} is {short_repr(value)}, which is not a number") from None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
