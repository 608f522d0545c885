"""Opening data sets: folders of audio, tables, corpora or hub names, as `datasets` objects with undecoded audio."""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from partita_core import PartitaError

from .audio.files import SUFFIXES, AudioSource
from .corpus.read import StoredCorpus
from .corpus.spec import CORPUS
from .messages import counted, warn_once, with_cause
from .sources.folders import AudioFolder
from .sources.listing import Listing, list_folder
from .sources.splits import canonical_split, chosen_split
from .sources.tables import Tables
from .where import NoMatchingRowsError, filter_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@overload
def open_dataset(
    path_or_name: str | os.PathLike, split: str = ..., *, where: str = ..., streaming: Literal[False] = ...
) -> "Dataset": ...


@overload
def open_dataset(
    path_or_name: str | os.PathLike, split: str = ..., *, where: str = ..., streaming: bool
) -> "Dataset | IterableDataset": ...


def open_dataset(
    path_or_name: str | os.PathLike, split: str = "train", *, where: str = "", streaming: bool = False
) -> "Dataset | IterableDataset":
    """Open one split of a data set.

    A folder of audio files is searched recursively, including links, in the order of the names. If it has sub-folders
    named train, validation or test with audio in them, these are the splits, and files next to them are left out. If
    each of its sub-folders has such splits, it is a collection: the union of them, split by split. Case does not
    matter, and `training`, `valid`, `val`, `dev` and `testing` are synonyms; folders that resemble splits by other
    names are an error, since test files could be trained on. Without split folders, a metadata column `split` with
    several values divides the files; otherwise all of it is "train".

    `metadata.csv` or `metadata.jsonl`, in any folder above the files, describes files by a `file_name` relative to
    itself; a column that one of them lacks is empty for its files.

    A folder that `encode_corpus` wrote holds latents in place of audio. Folders of Parquet files, of WebDataset
    archives (.tar) or written by `save_to_disk`, and a single such file, are read by `datasets`. A hub name is
    downloaded, or found in the cache, and then read like a folder.

    Files that are left out and metadata rows without a file are reported in one line each (see
    `partita.data.messages`).

    Args:
        path_or_name: the folder, the file, or `owner/name` on the hub.
        split: "train", "validation" or "test", or a synonym; of tables, any split that exists.
        where: conditions `COLUMN=VALUE`, joined by commas, that rows must meet; "" for all rows.
        streaming: read Parquet, archives, a corpus or a hub data set as an `IterableDataset`, shard by shard, without
            a copy in the cache; a hub data set is not downloaded first.

    Returns:
        Rows of `audio` (`Audio(decode=False)`: a dict of path and bytes), `file_name`, and all metadata columns; of a
        corpus, rows of latents as described by `corpus_spec`.

    Raises:
        PartitaError: the data set or split does not exist, its splits are ambiguous, it has no audio, its metadata
            cannot be read, no row meets the conditions, or a folder of audio is to be streamed.
    """
    found = _find(path_or_name, streaming=streaming)
    return _open(found, path_or_name, split, where=where, streaming=streaming)


def open_splits(path_or_name: str | os.PathLike, *, where: str = "") -> "dict[str, Dataset]":
    """Open all splits of a data set; a split without matching rows is left out and reported.

    Raises:
        PartitaError: as `open_dataset`; no split has a matching row.
    """
    found, opened, empty = _find(path_or_name, streaming=False), {}, []
    for split in _usual_names(found):
        try:
            opened[split] = _open(found, path_or_name, split, where=where, streaming=False)
        except NoMatchingRowsError as error:
            empty.append((split, error))
    if not opened:
        raise empty[0][1]
    for split, error in empty:
        warn_once(f"{error}; the split {split} is left out")
    return opened


def dataset_splits(path_or_name: str | os.PathLike, *, streaming: bool = False) -> list[str]:
    """Names of the splits of a data set, synonyms as train, validation and test; errors as `open_dataset`."""
    return _usual_names(_find(path_or_name, streaming=streaming))


def row_name(row: Mapping[str, Any], index: int | str) -> str:
    """Name of a row in messages: its `file_name`, or the path of its audio, or its number `index`."""
    return str(row.get("file_name") or (row.get("audio") or {}).get("path") or f"row {index}")


def row_names(dataset: "Dataset") -> list[str]:
    """Names of the rows of a data set; see `row_name`."""
    if "file_name" not in dataset.column_names:
        return [row_name(row, index) for index, row in enumerate(dataset)]  # pyright: ignore
    return [str(name or row_name(dataset[index], index)) for index, name in enumerate(dataset["file_name"])]


def row_source(row: Mapping[str, Any], index: int) -> AudioSource:
    """Audio of a row, named like the row if it has no path; missing audio has zero bytes."""
    audio = row.get("audio") or {}
    path, data = audio.get("path"), audio.get("bytes")
    return {"path": path or row_name(row, index), "bytes": data if path or data else b""}


def names_hash(dataset: "Dataset") -> str:
    """Hash of the file names of a data set in their order: 16 hex digits of a SHA-256."""
    digest = sha256()
    for name in dataset["file_name"]:
        digest.update(f"{name}\n".encode())
    return digest.hexdigest()[:16]


def audio_files(folder: Path) -> list[str]:
    """The audio files under `folder`, relative to it with forward slashes, sorted, without hidden files.

    Raises:
        PartitaError: the name of a file is not UTF-8, which tables cannot hold.
    """
    return list_folder(folder).audio


class _Source(Protocol):
    """A data set that was found: the names of its splits, each of which can be opened."""

    @property
    def splits(self) -> Iterable[str]: ...

    def missing(self, split: str) -> str: ...

    def open(self, split: str, *, streaming: bool) -> "Dataset | IterableDataset": ...


def _open(source: _Source, path_or_name: str | os.PathLike, split: str, *, where: str, streaming: bool) -> Any:
    name = chosen_split(split, list(source.splits))
    if name is None:
        raise PartitaError(source.missing(split))
    rows: Any = source.open(name, streaming=streaming)
    return filter_rows(rows, where, name=f"{path_or_name} ({name})")


def _usual_names(source: _Source) -> list[str]:
    names = list(source.splits)
    meant = [canonical_split(name) or name for name in names]
    return [name if meant.count(usual) > 1 else usual for name, usual in zip(names, meant)]


def _find(path_or_name: str | os.PathLike, *, streaming: bool) -> _Source:
    """The data set at a path or hub name, of any kind; errors as `open_dataset`."""
    if streaming and not Path(path_or_name).expanduser().exists():
        return Tables.named(str(path_or_name))
    path = Path(path_or_name).expanduser()
    if not path.exists():
        path = _download(str(path_or_name))
    if path.is_file():
        kinds = {".parquet": "parquet", ".tar": "webdataset"}
        if path.suffix not in kinds:
            raise PartitaError(f"{path}: is a file; pass the folder that contains it")
        return Tables.of_files(path, kinds[path.suffix], [])
    if (path / CORPUS).is_file():
        return StoredCorpus(path)
    saved = Tables.saved(path)
    if saved is not None:
        return saved
    listing = list_folder(path)
    kind, tables = _tables_of(listing)
    if tables:
        return Tables.of_files(path, kind, tables)
    if not listing.audio:
        raise PartitaError(f"{path}: contains no audio files ({', '.join(SUFFIXES)})")
    return AudioFolder(listing)


def _tables_of(listing: Listing) -> tuple[str, list[str]]:
    """Kind and names of the Parquet files or archives of a folder; no names for a folder of audio.

    Next to audio files, tables without a column of audio describe these; tables with one are another data set.

    Raises:
        PartitaError: the folder holds both audio files and tables with audio.
    """
    folder, audio = listing.folder, counted(listing.audio, "audio file") if listing.audio else ""
    parquet = counted(listing.parquet, "Parquet file") if listing.parquet else ""
    tar = counted(listing.tar, "archive") if listing.tar else ""
    kind, tables = ("parquet", listing.parquet) if parquet else ("webdataset", listing.tar)
    if listing.audio and parquet and _has_audio(folder / tables[0]):
        parquet += " with audio"
    elif listing.audio:
        if tables:
            warn_once(f"{folder}: left out {' and '.join(filter(None, (parquet, tar)))} next to {audio}")
        return kind, []
    kinds = [what for what in (audio, parquet, tar) if what]
    if len(kinds) > 1:
        both = " and ".join(kinds)
        raise PartitaError(f"{folder}: holds {both}, of which only one can be the data; move the others")
    return kind, tables


def _has_audio(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return "audio" in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return False


def _download(name: str) -> Path:
    """The local folder of a hub data set, downloaded if needed."""
    from huggingface_hub import snapshot_download

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise PartitaError(f"{name}: no such folder, nor an owner/name on the hub")
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise PartitaError(f"{name}: no such folder, and not available from the hub ({with_cause(error)})") from None
