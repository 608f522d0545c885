"""Data sets: a folder of audio, tables, or a name on the hub, as a `datasets.Dataset` of undecoded audio."""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from partita_core import PartitaError

from .audio.files import SUFFIXES, AudioSource
from .corpus.read import CORPUS, StoredCorpus, with_cause
from .notes import counted, note
from .sources.folders import AudioFolder
from .sources.listing import Listing, list_folder
from .sources.splits import chosen_split, split_called
from .sources.tables import Tables

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@overload
def open_dataset(path_or_name: str | os.PathLike, split: str = ..., *, stream: Literal[False] = ...) -> "Dataset": ...


@overload
def open_dataset(path_or_name: str | os.PathLike, split: str = ..., *, stream: bool) -> "Dataset | IterableDataset": ...


def open_dataset(
    path_or_name: str | os.PathLike, split: str = "train", *, stream: bool = False
) -> "Dataset | IterableDataset":
    """Opens one split of a data set.

    A folder of audio files is walked, over links too, in the order of the names. Where it has sub-folders called train,
    validation or test with audio in them, these are the splits and what lies beside them is left out. Where each of its
    sub-folders has such splits, it is a collection: the union of them, split by split. Case does not count, and
    `training`, `valid`, `val`, `dev` and `testing` will do; folders that look like splits by other names are refused,
    since test files would be trained on. Without split folders, a metadata column `split` that names several decides;
    else all of it is "train".

    `metadata.csv` or `metadata.jsonl`, in any folder above the files, describes files by `file_name` relative to
    itself; a column that one of them lacks is empty there.

    A folder that `encode_corpus` wrote holds latents in place of audio. Folders of Parquet files, of WebDataset
    archives (.tar) or written by `save_to_disk`, and a single such file, are read by `datasets`. A hub name is
    downloaded, or found in the cache, and then read as the folder it is.

    What is left out, or matches nothing, is counted and named in one line (see `partita.data.notes`).

    Args:
        path_or_name: the folder, the file, or `owner/name` on the hub.
        split: "train", "validation" or "test", or a synonym; of Parquet and the like whatever is there.
        stream: read Parquet, archives, a corpus or a set on the hub as an `IterableDataset`, shard by shard, without a
            copy of it in the cache; a hub name is then not downloaded, but read where it is.

    Returns:
        Rows of `audio` (`Audio(decode=False)`: a dict of path and bytes), `file_name` and all that is known of them; of
        a corpus, rows of latents as `corpus_spec` describes them.

    Raises:
        PartitaError: there is no such data set or split, what is a split is not sure, there is no audio in it, its
            metadata cannot be read, or it is a folder of audio that is to be a stream.
    """
    found = _find(path_or_name, stream=stream)
    name = chosen_split(split, list(found.splits))
    if name is None:
        raise PartitaError(found.missing(split))
    return found.open(name, stream=stream)


def dataset_splits(path_or_name: str | os.PathLike, *, stream: bool = False) -> list[str]:
    """The splits that `open_dataset` finds there, the usual ones by their usual names; errors as it raises them."""
    names = list(_find(path_or_name, stream=stream).splits)
    meant = [split_called(name) or name for name in names]
    return [name if meant.count(usual) > 1 else usual for name, usual in zip(names, meant)]


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


def audio_files(folder: Path) -> list[str]:
    """The audio files under `folder`, relative to it with forward slashes, sorted; hidden ones are left out.

    Raises:
        PartitaError: the name of one is not UTF-8, which no table holds.
    """
    return list_folder(folder).audio


class _Source(Protocol):
    """A data set that was found: the names of its splits, each of which can be opened."""

    @property
    def splits(self) -> Iterable[str]: ...

    def missing(self, split: str) -> str: ...

    def open(self, split: str, *, stream: bool) -> "Dataset | IterableDataset": ...


def _find(path_or_name: str | os.PathLike, *, stream: bool) -> _Source:
    """The data set of a path or name, of whatever kind; errors as `open_dataset`."""
    if stream and not Path(path_or_name).expanduser().exists():
        return Tables.named(str(path_or_name))
    path = Path(path_or_name).expanduser()
    if not path.exists():
        path = _download(str(path_or_name))
    if path.is_file():
        kinds = {".parquet": "parquet", ".tar": "webdataset"}
        if path.suffix not in kinds:
            raise PartitaError(f"{path}: is a file; name the folder that it is in")
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
        raise PartitaError(f"{path}: no audio files in it; {', '.join(SUFFIXES)} are looked for")
    return AudioFolder(listing)


def _tables_of(listing: Listing) -> tuple[str, list[str]]:
    """The Parquet files or archives that a folder is made of, and which they are; none where it is a folder of audio.

    Beside audio files, tables without a column of audio describe these; tables with one are another data set.

    Raises:
        PartitaError: it is both.
    """
    folder, audio = listing.folder, counted(listing.audio, "audio file") if listing.audio else ""
    parquet = counted(listing.parquet, "Parquet file") if listing.parquet else ""
    tar = counted(listing.tar, "archive") if listing.tar else ""
    kind, tables = ("parquet", listing.parquet) if parquet else ("webdataset", listing.tar)
    if listing.audio and parquet and _has_audio(folder / tables[0]):
        parquet += " with audio"
    elif listing.audio:
        if tables:
            note(f"{folder}: left out {' and '.join(filter(None, (parquet, tar)))} beside {audio}")
        return kind, []
    kinds = [what for what in (audio, parquet, tar) if what]
    if len(kinds) > 1:
        both = " and ".join(kinds)
        raise PartitaError(f"{folder}: holds {both}, and the data is either; move one of them, or name a folder of one")
    return kind, tables


def _has_audio(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return "audio" in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return False


def _download(name: str) -> Path:
    """The folder that a data set of the hub is in, once downloaded."""
    from huggingface_hub import snapshot_download

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise PartitaError(f"{name}: no such folder, nor an owner/name on the hub")
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise PartitaError(f"{name}: no such folder, and not to be had from the hub ({with_cause(error)})") from None
