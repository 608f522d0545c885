"""Folders of audio files as data sets: division into splits, and rows of files with their metadata."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError

from partita.data.messages import counted, warn_once

from .listing import Listing
from .metadata import Row, file_metadata
from .splits import SPLITS, canonical_split, divide_folders

if TYPE_CHECKING:
    from datasets import Dataset


class AudioFolder:
    """A folder of audio files.

    Attributes:
        path: the folder.
        splits: files of each split; if the folder is not divided, all files are "train".
    """

    def __init__(self, listing: Listing) -> None:
        """Divide the files by their folders or, if these are not splits, by a metadata column `split`.

        Raises:
            PartitaError: the splits are ambiguous, or metadata cannot be read.
        """
        self.path, self._listing = listing.folder, listing
        self._divided = divide_folders(self.path, listing.audio).splits
        if not self._divided and listing.metadata:
            self._divided = _divide_by_column(self.path, listing.audio, self._rows(listing.audio))
        self.splits = self._divided or {"train": listing.audio}

    def missing(self, split: str) -> str:
        """Error message for a split that does not exist."""
        if self._divided:
            return f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"
        return f"{self.path}: has no split {split!r}; without split folders, all of it is 'train'"

    def open(self, split: str, *, streaming: bool = False) -> "Dataset":
        """The rows of a split, in the order of the names.

        Raises:
            PartitaError: it is to be streamed, or metadata cannot be read.
        """
        from datasets import Audio, Dataset

        if streaming:
            raise PartitaError(f"{self.path}: a folder of audio cannot be streamed; set data.streaming=false")
        files = self.splits[split]
        known = self._rows(files)
        without = [name for name in files if name not in known]
        if known and without:
            warn_once(f"{self.path}: of {len(files)} files in {split}, {counted(without)} have no row of metadata")
        rows = [known.get(name, {}) for name in files]
        columns = {key: None for row in rows for key in row}
        table: dict[str, Any] = {key: [row.get(key) for row in rows] for key in columns}
        table |= {"audio": [str(self.path / name) for name in files], "file_name": files}
        return Dataset.from_dict(table).cast_column("audio", Audio(decode=False))

    def _rows(self, files: list[str]) -> dict[str, Row]:
        """The rows of metadata that describe `files`, from the folders above them."""
        places = {""} | {name[: i + 1] for name in files for i, mark in enumerate(name) if mark == "/"}
        tables = [name for name in self._listing.metadata if name[: name.rfind("/") + 1] in places]
        found, wanted = file_metadata(self.path, tables, self._listing.audio), set(files)
        return {name: row for name, row in found.items() if name in wanted}


def _divide_by_column(folder: Path, files: list[str], rows: dict[str, Row]) -> dict[str, list[str]]:
    """Files of each split, by the column `split`; empty if it does not divide the files.

    Raises:
        PartitaError: the column names a split for some files only.
    """
    named = {name: canonical_split(str(rows.get(name, {}).get("split") or "")) for name in files}
    kinds = set(named.values()) - {None}
    without = [name for name, split in named.items() if split is None]
    if len(kinds) < 2 and (not without or kinds <= {"train"}):
        return {}
    if without:
        which, left = " and ".join(sorted(map(str, kinds))), counted(without, "file")
        raise PartitaError(f"{folder}: the metadata column split names {which}, but is empty for {left}; fill it in")
    return {split: [name for name in files if named[name] == split] for split in SPLITS if split in kinds}
