"""Training and validation data of a run: opened by name, or given as data sets of `datasets`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError

from partita.data import (
    changed_file,
    corpus_spec,
    dataset_splits,
    first_rows,
    names_hash,
    open_dataset,
    sample_digests,
)
from partita.data.messages import warn_once
from partita.data.sources.splits import chosen_split
from partita.data.sources.tables import audio_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    Data = str | os.PathLike | Dataset | IterableDataset | Mapping[str, Any]


class RunData:
    """Splits of the data of a run.

    Attributes:
        name: name of the data on the model card.
        source: path or name of the data in messages.
        train: rows of the split "train", as `open_dataset` returns them.
    """

    def __init__(self, data: "Data", *, streaming: bool, where: str = "") -> None:
        """Open the split "train".

        Args:
            data: folder, file or hub name, as `open_dataset` takes it; or a `Dataset` or `IterableDataset` with a
                column `audio` or with stored latents, or a `DatasetDict` or `IterableDatasetDict` of splits.
            streaming: read named data as a stream; must be set for an `IterableDataset`.
            where: conditions that rows of named data meet; see `open_dataset`.

        Raises:
            PartitaError: there is no such data or split, or it holds no audio and no latents.
        """
        self._streaming, self._where = streaming, where
        if isinstance(data, (str, os.PathLike)):
            path = Path(data)
            self.name, self.source = path.resolve().name if path.exists() else str(data), str(data)
            self._splits: dict[str, Any] | None = None
            self.train = open_dataset(data, split="train", where=where, streaming=streaming)
        else:
            self._splits = dict(data) if isinstance(data, Mapping) else {"train": data}
            self.name = self.source = type(data).__name__
            self.train = self._given("train")

    def validation(self) -> "tuple[str, Dataset]":
        """Name and rows of the split "validation"; of "train" if there is none, and only the first rows of a stream."""
        if self._splits is None:
            names = dataset_splits(self.source, streaming=self._streaming)
            split = "validation" if "validation" in names else "train"
        else:
            split = "train" if chosen_split("validation", list(self._splits)) is None else "validation"
        if split == "train":
            warn_once(f"{self.source}: has no split validation; evaluations during training use training files")
        if self._splits is not None:
            return split, first_rows(self._given(split))
        return split, first_rows(open_dataset(self.source, split=split, where=self._where, streaming=self._streaming))

    def _given(self, split: str) -> Any:
        """Rows of a split that was given as an object."""
        from datasets import Dataset, IterableDataset

        assert self._splits is not None
        name = chosen_split(split, list(self._splits))
        if name is None:
            raise PartitaError(f"data has no split {split!r}; it has {', '.join(self._splits)}")
        dataset = self._splits[name]
        if not isinstance(dataset, (Dataset, IterableDataset)):
            raise PartitaError(
                f"data is a {type(dataset).__name__}; pass a folder, a file, a hub name, or a data set of `datasets`"
            )
        if isinstance(dataset, IterableDataset) != self._streaming:
            if self._streaming:
                raise PartitaError(
                    "data.streaming is true, but data is a Dataset, not a stream; set data.streaming=false"
                )
            raise PartitaError("data is an IterableDataset; set data.streaming=true")
        if corpus_spec(dataset) is not None:
            return dataset
        return audio_rows(dataset.with_format(None), f"data ({type(dataset).__name__})")


@dataclass(frozen=True)
class DataFingerprint:
    """Fingerprint of the training files, which shows whether they changed before a run is resumed.

    Attributes:
        names: number of rows and hash of the file names; empty for a stream, whose files are not listed.
        contents: digests of the contents of some files, by name.
    """

    names: str = ""
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: "Dataset | IterableDataset") -> "DataFingerprint":
        """Fingerprint of the rows of a data set; that of a stream is empty."""
        from datasets import Dataset

        if not isinstance(dataset, Dataset):
            return cls()
        names = names_hash(dataset) if "file_name" in dataset.column_names else "without names"
        return cls(f"{len(dataset)}, {names}", sample_digests(dataset))

    def check_same(self, now: "DataFingerprint", run: Path) -> None:
        """Check that a run that was started on these files is resumed on the same ones.

        Raises:
            PartitaError: names, or the contents of a file, have changed.
        """
        if self.names and now.names and self.names != now.names:
            raise PartitaError(f"{run} was started with other files; resume it with the same data, unchanged")
        if changed := changed_file(self.contents, now.contents):
            raise PartitaError(f"{run} was started with other files: {changed} has changed since; restore it")

    def merged(self, now: "DataFingerprint") -> "DataFingerprint":
        """These names with the digests of both fingerprints."""
        return DataFingerprint(self.names or now.names, self.contents | now.contents)
