"""Data sets: a folder of audio, Parquet files, or a name on the hub, as one `datasets.Dataset` of undecoded audio."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from partita_core import PartitaError, nearest, shorten, shown

from .audio import SUFFIXES, AudioSource
from .stored import CORPUS, open_stored, stored_splits, with_cause

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

SPLITS = ("train", "validation", "test")

METADATA = "metadata.csv"


def _whole_number(cell: str) -> int:
    number = int(cell)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{shown(number)} is larger than 64 bits hold")
    return number


# Columns of metadata.csv that hold numbers; everything else is text, also where it looks like a number.
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "duration_s": float,
    "tempo": float,
    "sample_rate": _whole_number,
    "channels": _whole_number,
}


@overload
def open_dataset(path_or_name: str | os.PathLike, split: str = ..., *, stream: Literal[False] = ...) -> "Dataset": ...


@overload
def open_dataset(path_or_name: str | os.PathLike, split: str = ..., *, stream: bool) -> "Dataset | IterableDataset": ...


def open_dataset(
    path_or_name: str | os.PathLike, split: str = "train", *, stream: bool = False
) -> "Dataset | IterableDataset":
    """Opens one split of a data set.

    A folder of audio files is walked, in the order of the names. Where it has sub-folders called train, validation or
    test with audio in them, these are the splits and what lies beside them is left out. Where each of its sub-folders
    has such splits, it is a collection: the union of them, split by split. Else all of it is "train". A
    `metadata.csv`, in the folder, in that of the split or in a sub-folder of a collection, describes files by
    `file_name` relative to itself; a column that one of them lacks is empty there.

    A folder that `encode_corpus` wrote holds latents in place of audio. Any other folder of Parquet files, or one such
    file, is read by `datasets`. A hub name is downloaded, or found in the cache, and then read as the folder it is.

    Args:
        path_or_name: the folder, the Parquet file, or `owner/name` on the hub.
        split: "train", "validation" or "test"; for Parquet whatever is there.
        stream: read Parquet, a corpus or a set on the hub as an `IterableDataset`, shard by shard, without a copy of it
            in the cache; a hub name is then not downloaded, but read where it is.

    Returns:
        Rows of `audio` (`Audio(decode=False)`: a dict of path and bytes), `file_name` and all that is known of them; of
        a corpus, rows of latents as `corpus_spec` describes them.

    Raises:
        PartitaError: there is no such data set or split, no audio in it, its metadata cannot be read, or it is a folder
            of audio that is to be a stream.
    """
    if stream and not Path(path_or_name).expanduser().exists():
        return _open_parquet(str(path_or_name), split, stream=True)
    path = _locate(path_or_name)
    if (path / CORPUS).is_file():
        return open_stored(path, split, stream=stream)
    files = [] if path.is_file() else audio_files(path)
    if files and stream:
        raise PartitaError(f"{path}: is a folder of audio, which is read at random anyhow; set data.stream to none")
    if files:
        return _open_folder(path, files, split)
    if path.is_file() or any(path.rglob("*.parquet")):
        return _open_parquet(path, split, stream=stream)
    raise PartitaError(f"{path}: no audio files in it; {', '.join(SUFFIXES)} are looked for")


def row_name(row: Mapping[str, Any], index: int | str) -> str:
    """What a row is called, the one of number `index`: by its `file_name`, else as its audio is, else by its number."""
    return str(row.get("file_name") or (row.get("audio") or {}).get("path") or f"row {index}")


def row_source(row: Mapping[str, Any], index: int) -> AudioSource:
    """The audio of a row, called as the row is where it has no name of its own; none at all is empty."""
    audio = row.get("audio") or {}
    path, data = audio.get("path"), audio.get("bytes")
    return {"path": path or row_name(row, index), "bytes": data if path or data else b""}


def names_hash(dataset: "Dataset") -> str:
    """What the rows of a data set are called, all in all and in their order: 16 hex digits of a sha256."""
    digest = sha256()
    for name in dataset["file_name"]:
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()[:16]


def spread_rows(total: int, count: int) -> list[int]:
    """At most `count` of `total` rows, spread evenly from the first on."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def dataset_splits(path_or_name: str | os.PathLike) -> list[str]:
    """The splits that `open_dataset` finds there, in the usual order; errors as it raises them."""
    path = _locate(path_or_name)
    if (path / CORPUS).is_file():
        return stored_splits(path)
    files = [] if path.is_file() else audio_files(path)
    if files:
        return _splits(_collection(files)) or ["train"]
    if path.is_dir() and any(path.rglob("*.parquet")):
        from datasets import get_dataset_split_names

        return list(get_dataset_split_names(str(path)))
    open_dataset(path)
    return ["train"]


def _locate(path_or_name: str | os.PathLike) -> Path:
    path = Path(path_or_name).expanduser()
    if not path.exists():
        path = _download(str(path_or_name))
    if path.is_file() and path.suffix != ".parquet":
        raise PartitaError(f"{path}: is a file; name the folder that it is in")
    return path


def audio_files(folder: Path) -> list[str]:
    """The audio files under `folder`, relative to it with forward slashes, sorted; hidden ones are left out.

    Raises:
        PartitaError: the name of one is not UTF-8, which no table holds.
    """
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(where).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    for name in found:
        try:
            f"{folder / name}".encode()
        except UnicodeEncodeError:
            raise PartitaError(f"{os.fsencode(folder / name)!r}: the name is not UTF-8; rename the file") from None
    return sorted(found)


def _open_folder(folder: Path, files: list[str], split: str) -> "Dataset":
    from datasets import Audio, Dataset

    parts = _collection(files)
    splits = _splits(parts)
    if splits and split not in splits:
        raise PartitaError(f"{folder}: has no split {split!r}; it has {', '.join(splits)}")
    if not splits and split != "train":
        raise PartitaError(f"{folder}: has no split folders, so that all of it is 'train'; {split!r} is not there")
    inside = {prefix: f"{prefix}{split}/" if splits else prefix for prefix in parts}
    chosen = [prefix + name for prefix, names in parts.items() for name in names]
    chosen = [name for name in chosen if name.startswith(tuple(inside.values()))]
    described: dict[str, dict[str, Any]] = {}
    for place in dict.fromkeys(("", *parts, *inside.values())):
        described |= _metadata(folder / place, place)
    rows = [described.get(name, {}) for name in chosen]
    columns = {key: None for row in rows for key in row}
    table = {key: [row.get(key) for row in rows] for key in columns}
    table |= {"audio": [str(folder / name) for name in chosen], "file_name": chosen}
    return Dataset.from_dict(table).cast_column("audio", Audio(decode=False))


def _collection(files: list[str]) -> dict[str, list[str]]:
    """The files of each part, relative to it, by what is before them: sub-folders if each has splits, else one part."""
    parts: dict[str, list[str]] = {}
    for name in files:
        top, slash, rest = name.partition("/")
        parts.setdefault(top + slash, []).append(rest)
    whole = bool(_split_folders(files)) or not all(map(_split_folders, parts.values()))
    return {"": files} if whole else parts


def _split_folders(files: list[str]) -> list[str]:
    tops = {name.split("/")[0] for name in files if "/" in name}
    return [name for name in SPLITS if name in tops]


def _splits(parts: dict[str, list[str]]) -> list[str]:
    found = {name for files in parts.values() for name in _split_folders(files)}
    return [name for name in SPLITS if name in found]


def _metadata(folder: Path, prefix: str) -> dict[str, dict[str, Any]]:
    """The rows of a folder's metadata.csv, by file name with `prefix` before it; empty without one."""
    path = folder / METADATA
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {prefix + row["file_name"]: row for row in _rows(csv.DictReader(file, strict=True))}
    except KeyError:
        raise PartitaError(f"{path}: has no column file_name") from None
    except (csv.Error, OSError, ValueError) as error:
        raise PartitaError(f"{path}: cannot be read ({error})") from None


def _rows(reader: csv.DictReader) -> Iterator[dict[str, Any]]:
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than the header")
        if row.get("file_name", "?") in ("", None):
            raise ValueError(f"line {reader.line_num} has no file_name")
        yield {key: _NUMBERS.get(key, str)(cell) if cell else None for key, cell in row.items()}


def _open_parquet(path: Path | str, split: str, *, stream: bool) -> "Dataset | IterableDataset":
    import pyarrow as pa
    from datasets import Audio, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        if isinstance(path, Path) and path.is_file():
            dataset = load_dataset("parquet", data_files={"train": str(path)}, split=split, streaming=stream)
        else:
            dataset = load_dataset(str(path), split=split, streaming=stream)
    except (ValueError, OSError, DatasetsError) as error:
        raise PartitaError(f"{path}: {with_cause(error)}") from None
    columns = dataset.column_names or []
    if "audio" not in columns:
        raise PartitaError(f"{path}: has no column audio; {nearest('audio', columns)}")
    features: Any = dataset.features
    kind = features.arrow_schema.field("audio").type
    try:
        Audio(decode=False).cast_storage(pa.array([], kind))
    except (pa.ArrowException, TypeError):
        raise PartitaError(f"{path}: its column audio is {shorten(str(kind))}; audio is a path and bytes") from None
    dataset = dataset.cast_column("audio", Audio(decode=False))
    if not stream and "file_name" not in columns:
        names = [row_name({"audio": cell}, i) for i, cell in enumerate(dataset["audio"])]
        dataset = dataset.add_column("file_name", names)
    return dataset


def _download(name: str) -> Path:
    """The folder that a data set of the hub is in, once downloaded."""
    from huggingface_hub import snapshot_download

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise PartitaError(f"{name}: no such folder, nor an owner/name on the hub")
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise PartitaError(f"{name}: no such folder, and not to be had from the hub ({with_cause(error)})") from None
