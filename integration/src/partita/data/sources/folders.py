"""Folders of audio files as data sets: their splits, and the rows that files and metadata make together."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError

from partita.data.notes import counted, note

from .listing import Listing
from .metadata import Row, described
from .splits import SPLITS, divide_folders, split_called

if TYPE_CHECKING:
    from datasets import Dataset


class AudioFolder:
    """A folder of audio files.

    Attributes:
        path: the folder.
        splits: split -> its files; without any, all files are "train".
    """

    def __init__(self, listing: Listing) -> None:
        """Divide the files by their folders; where these are no splits, by a metadata column `split`.

        Raises:
            PartitaError: what is a split is not sure, or metadata cannot be read.
        """
        self.path, self._listing = listing.folder, listing
        self._divided = divide_folders(self.path, listing.audio).splits
        if not self._divided and listing.metadata:
            self._divided = _divide_by_column(self.path, listing.audio, self._rows(listing.audio))
        self.splits = self._divided or {"train": listing.audio}

    def missing(self, split: str) -> str:
        """One line for a split that is not there."""
        if self._divided:
            return f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"
        return f"{self.path}: has no split folders, so that all of it is 'train'; {split!r} is not there"

    def open(self, split: str, *, stream: bool = False) -> "Dataset":
        """The rows of a split, in the order of the names.

        Raises:
            PartitaError: it is to be a stream, or metadata cannot be read.
        """
        from datasets import Audio, Dataset

        if stream:
            raise PartitaError(f"{self.path}: is a folder of audio, which is read at random; set data.stream to none")
        files = self.splits[split]
        known = self._rows(files)
        without = [name for name in files if name not in known]
        if known and without:
            note(f"{self.path}: of {len(files)} files in {split}, no row of metadata for {counted(without)}")
        rows = [known.get(name, {}) for name in files]
        columns = {key: None for row in rows for key in row}
        table: dict[str, Any] = {key: [row.get(key) for row in rows] for key in columns}
        table |= {"audio": [str(self.path / name) for name in files], "file_name": files}
        return Dataset.from_dict(table).cast_column("audio", Audio(decode=False))

    def _rows(self, files: list[str]) -> dict[str, Row]:
        """The rows of metadata that describe `files`, from the folders that lead to any of them."""
        places = {""} | {name[: i + 1] for name in files for i, mark in enumerate(name) if mark == "/"}
        tables = [name for name in self._listing.metadata if name[: name.rfind("/") + 1] in places]
        found, wanted = described(self.path, tables, self._listing.audio), set(files)
        return {name: row for name, row in found.items() if name in wanted}


def _divide_by_column(folder: Path, files: list[str], rows: dict[str, Row]) -> dict[str, list[str]]:
    """Split -> its files, by the column `split`; empty where it does not tell files apart.

    Raises:
        PartitaError: it does for some files only.
    """
    named = {name: split_called(str(rows.get(name, {}).get("split") or "")) for name in files}
    kinds = set(named.values()) - {None}
    without = [name for name, split in named.items() if split is None]
    if len(kinds) < 2 and (not without or kinds <= {"train"}):
        return {}
    if without:
        which, left = " and ".join(sorted(map(str, kinds))), counted(without, "file")
        raise PartitaError(f"{folder}: the metadata's column split names {which}, and no split of {left}; fill it in")
    return {split: [name for name in files if named[name] == split] for split in SPLITS if split in kinds}
