"""Opening a corpus of latents as a data set, and iterating over its latents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from partita_core import Latents, PartitaError, to_dict

from partita.data.messages import with_cause

from .record import read_record, shard_path
from .spec import DESCRIPTION, corpus_spec

if TYPE_CHECKING:
    from datasets import Dataset


class StoredCorpus:
    """A corpus of latents as a data set.

    Args:
        path: folder of the corpus.

    Attributes:
        splits: names of its splits.

    Raises:
        PartitaError: its `corpus.json` cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._record = path, read_record(path)
        self.splits = tuple(self._record.splits)

    def missing(self, split: str) -> str:
        """Error message for a split that does not exist."""
        return f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"

    def open(self, split: str, *, streaming: bool = False) -> "Dataset":
        """The rows of a split; with `streaming`, an `IterableDataset` of its shards.

        Raises:
            PartitaError: its encoding is not finished, or a shard cannot be read.
        """
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        folder, record = self.path, self._record
        count = len(record.splits[split].ends)
        files = [shard_path(folder, split, number) for number in range(count)]
        missing = sum(not file.is_file() for file in files)
        if missing:
            left = f"{missing} of {count} shards of {split!r} are missing"
            raise PartitaError(f"{folder}: {left}; run the command that encodes it again to complete it")
        try:
            shards = {split: [str(file) for file in files]}
            dataset = load_dataset("parquet", data_files=shards, split=split, streaming=streaming)
        except (ValueError, OSError, DatasetsError) as error:
            raise PartitaError(f"{folder}: {with_cause(error)}") from None
        dataset.info.description = json.dumps({DESCRIPTION: to_dict(record.corpus)})
        return dataset  # pyright: ignore[reportReturnType]


def stored_latents(dataset: "Dataset") -> Iterator[Latents]:
    """Iterate over the latents of all rows, one item each.

    Raises:
        PartitaError: the data set is not a corpus, or a row is damaged.
    """
    spec = corpus_spec(dataset)
    if spec is None:
        raise PartitaError("the data set holds audio, not latents; encode it first")
    for row in dataset:
        yield spec.latents(row)  # pyright: ignore[reportArgumentType]
