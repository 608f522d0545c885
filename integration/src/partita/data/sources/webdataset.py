"""WebDataset archives: tar files in which consecutive files of one name (`key.flac`, `key.json`) are a sample."""

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError, parse_json, shorten

from partita.data.audio.files import SUFFIXES
from partita.data.messages import warn_once

from .listing import spread_rows
from .metadata import NUMBERS, cell

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Archives, and samples of each, that determine the columns.
_INSPECTED = 16


def open_archives(files: Sequence[str], *, streaming: bool) -> "Dataset | IterableDataset":
    """Open archives as rows of `audio`, `file_name`, the fields of their JSON, and `text` (.txt).

    A sample without audio is a row without audio. Fields that only later samples have are left out and reported.

    Args:
        files: the archives, each of which is a shard.
        streaming: read them shard by shard instead of copying them to the cache.

    Raises:
        PartitaError: no archive can be read, or no sample has audio.
    """
    from datasets import Dataset, Features, IterableDataset, Value

    columns = _columns(files)
    kinds = {float: "float64"} | {number: "int64" for number in NUMBERS.values() if number is not float}
    features: Any = {name: Value(kinds[NUMBERS[name]] if name in NUMBERS else "string") for name in columns}
    features["audio"] = {"bytes": Value("binary"), "path": Value("string")}  # Audio() would need torchcodec
    if streaming:
        rows = partial(_rows, columns=columns)
        return IterableDataset.from_generator(rows, features=Features(features), gen_kwargs={"files": list(files)})
    stamps = tuple((os.path.getsize(file), os.stat(file).st_mtime_ns) for file in files)  # part of the cache key
    settings = {"files": list(files), "columns": columns, "stamps": stamps}
    return Dataset.from_generator(_rows, features=Features(features), gen_kwargs=settings)  # pyright: ignore


def _columns(files: Sequence[str]) -> tuple[str, ...]:
    """The columns of the first samples of some archives; damaged ones are reported when they are read.

    Raises:
        PartitaError: none of the archives can be read, or no sample has audio.
    """
    found: dict[str, None] = {}
    has_audio, damaged = False, []
    for number in spread_rows(len(files), _INSPECTED):
        try:
            for row in islice(_samples(files[number]), _INSPECTED):
                has_audio = has_audio or bool(row.pop("audio")["bytes"])
                found |= dict.fromkeys(row)
        except ValueError as error:
            damaged.append(str(error))
    if damaged and not has_audio:
        raise PartitaError(damaged[0])
    if not has_audio:
        fields = shorten(", ".join(name for name in found if name != "file_name")) or "no fields"
        raise PartitaError(f"{files[0]}: no sample has an audio file ({', '.join(SUFFIXES)}); samples have {fields}")
    return tuple(name for name in found if name != "audio")


def _rows(files: Iterable[str], columns: tuple[str, ...], stamps: Any = None) -> Iterator[dict[str, Any]]:
    for file in files:
        unknown: set[str] = set()
        for row in _samples(file):
            unknown |= row.keys() - {"audio", *columns}
            yield {"audio": row["audio"]} | {name: row.get(name) for name in columns}
        if unknown:
            fields = shorten(", ".join(sorted(unknown)))
            warn_once(f"{file}: fields missing in its first {_INSPECTED} samples are left out ({fields})")


def _samples(file: str) -> Iterator[dict[str, Any]]:
    """The samples of an archive, in their order.

    Raises:
        ValueError: the archive cannot be read; `datasets` passes on this type in one line.
    """
    key, members = None, {}
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, dot, suffix = name.partition(".")
                opened = archive.extractfile(member) if member.isfile() and stem and dot else None
                if opened is None:
                    continue
                if key not in (None, folder + slash + stem):
                    yield _sample(file, str(key), members)
                    members = {}
                key = folder + slash + stem
                members[suffix.lower()] = opened.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read as an archive ({error})") from None
    if key is not None:
        yield _sample(file, key, members)


def _sample(file: str, key: str, members: dict[str, bytes]) -> dict[str, Any]:
    audio = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    if len(audio) > 1:
        found = f"{len(audio)} audio files ({', '.join(audio)})"
        raise ValueError(f"{file}: the sample {key!r} has {found}; only one is supported")
    try:
        fields = parse_json(members["json"].decode()) if "json" in members else {}
        texts = {"text": members["txt"].decode()} if "txt" in members else {}
    except ValueError as error:
        raise ValueError(f"{file}: the sample {key!r} cannot be read ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{file}: the JSON of the sample {key!r} is not an object")
    name = f"{key}.{audio[0]}" if audio else key
    row = {column: cell(column, value) for column, value in (texts | fields).items()}
    return row | {"file_name": name, "audio": {"bytes": members[audio[0]] if audio else b"", "path": name}}
