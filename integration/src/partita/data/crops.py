"""Training crops as a data set: each a deterministic function of (seed, epoch, row)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from partita_core import PartitaError, hashed_seed
from torch import Generator

from .batches import Item, SkippedFile
from .columns import NumericColumns
from .data_config import DataConfig
from .datasets import row_name
from .texts import check_texts, draw_text

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Files tried for one crop before an error is raised.
MAX_ATTEMPTS = 64


class SilentError(PartitaError):
    """A file is silent in every crop that was drawn."""


class Crops(torch.utils.data.Dataset, ABC):
    """Crops of the files of a data set, one per file and epoch.

    `crops[epoch, index]` is a random crop of row `index`. A file that cannot be read, or is silent in every crop drawn,
    is replaced by another, chosen by (seed, epoch, index), and named in `broken`; if no other file is usable, a silent
    crop is returned. A stream has no rows to index and calls `cut` instead.

    Args:
        dataset: data set or stream, as `open_dataset` returns it.
        config: cropping and labels; `crop_seconds` and `batch_size` are not used.
        seed: seed of all random draws.
        classes: class names for string columns, as of another split; None for those of the data set.

    Attributes:
        columns: the columns that are part of each item.

    Raises:
        PartitaError: the data set is empty, or a column for texts or labels is missing.
    """

    kind: ClassVar[str]  # content of the rows, for error messages

    def __init__(
        self,
        dataset: "Dataset | IterableDataset",
        *,
        config: DataConfig,
        seed: int,
        classes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        if getattr(dataset, "num_rows", None) == 0:  # a stream is found empty when it is read
            raise PartitaError(f"the data set holds no {self.kind}")
        check_texts(config.texts, dataset.column_names or ())
        self.columns = NumericColumns(dataset, config.columns, classes)
        self.dataset: Any = dataset
        self.config, self.seed = config, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        generator = Generator().manual_seed(hashed_seed(self.seed, "crop", epoch, index))
        broken: list[SkippedFile] = []
        silent: list[int] = []
        for candidate in self._candidates(epoch, index):
            row = self.dataset[candidate]
            try:
                return self.cut(row, candidate, generator) | Item(broken=broken)
            except PartitaError as error:
                broken.append(SkippedFile(error, row_name(row, candidate)))
                silent += [candidate] if isinstance(error, SilentError) else []
        if silent:
            row = self.dataset[silent[0]]
            return self.cut(row, silent[0], generator, allow_silence=True) | Item(broken=broken)
        raise unreadable(broken, of=len(self))

    def cut(self, row: dict[str, Any], index: int, generator: Generator, *, allow_silence: bool = False) -> Item:
        """A random crop of the file of a row.

        Args:
            row: the row.
            index: its number.
            generator: source of the random draws.
            allow_silence: accept a silent crop.

        Raises:
            PartitaError: the row cannot be read.
            SilentError: all crops drawn are silent.
        """
        item, is_whole_file = self._draw(row, index, generator, allow_silence)
        item |= Item(index=index, file_name=row_name(row, index))
        if self.config.texts:
            prompt, answer = draw_text(self.config.texts, row, whole=is_whole_file, generator=generator)
            item |= Item(prompt=prompt, answer=answer)
        return item | Item(columns=self.columns.numbers(row, index)) if self.config.columns else item

    @abstractmethod
    def _draw(self, row: dict[str, Any], index: int, generator: Generator, allow_silence: bool) -> tuple[Item, bool]:
        """The content of a random crop, and True if it holds the entire file; errors as `cut`."""

    def _candidates(self, epoch: int, index: int) -> Iterator[int]:
        """`index`, then its replacements in random order."""
        yield index
        generator = Generator().manual_seed(hashed_seed(self.seed, "replacement", epoch, index))
        others = torch.randperm(len(self), generator=generator)[:MAX_ATTEMPTS].tolist()
        yield from (other for other in others if other != index)


def unreadable(broken: list[SkippedFile], *, of: int | None = None) -> PartitaError:
    """The error for files that failed one after the other, out of a number of files."""
    total = "" if of is None else f" out of {of}"
    return PartitaError(f"{len(broken)} files in a row cannot be read{total}; the first: {broken[0]}")
