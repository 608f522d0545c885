"""Streamed data sets: batches of crops read shard by shard, for sets too large to copy or to read at random."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import PartitaError, hashed_seed
from torch import Generator
from torch.utils.data import DataLoader, get_worker_info

from .batches import Batch, Item, SkippedFile, collate
from .crops import MAX_ATTEMPTS, Crops, unreadable
from .datasets import row_name
from .shards import read_blocks, shard_name

if TYPE_CHECKING:
    from datasets import IterableDataset

StreamPosition = tuple[int, int, int, int]
"""Position in a stream: number of the stream, epoch, shards read in the epoch, and rows read of the next shard."""


class CropStream(torch.utils.data.IterableDataset):
    """Endless batches of crops of a stream, each with the position after it.

    The shards are divided among the streams of all processes and workers once for the whole run, so no shard is read by
    two of them, nor twice in an epoch. In each epoch a stream reads its shards in a new order, and shuffles
    `DataConfig.shuffle_buffer` rows at a time. A row that cannot be read is skipped and named in `broken` of the next.
    A stream without a readable shard continues with those of the others, so that no process lacks a batch.

    Args:
        crops: cuts an item from a row.
        dataset: the stream.
        share: crops per batch in this process.
        num_streams: number of streams of all processes and workers.
        positions: position of each stream of this process; that of the next batch first.
    """

    def __init__(
        self,
        crops: Crops,
        dataset: "IterableDataset",
        *,
        share: int,
        num_streams: int,
        positions: Sequence[StreamPosition],
    ) -> None:
        self.crops, self.dataset, self.share = crops, dataset, share
        self.seed, self.block = crops.seed, crops.config.shuffle_buffer
        self.num_streams, self.positions = num_streams, list(positions)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        position = self.positions[0 if worker is None else worker.id]
        rows, items = self._items(position), []
        while True:
            try:
                item, position = next(rows)
            except PartitaError as error:
                yield error  # raised in a worker, it would arrive with a traceback in its message
                return
            items.append(item)
            if len(items) == self.share:
                yield collate(items), position
                items = []

    def _items(self, position: StreamPosition) -> Iterator[tuple[Item, StreamPosition]]:
        """The crops of one stream from `position` on, each with the position after it."""
        stream, epoch, shards, first = position
        every = torch.arange(self.dataset.num_shards)
        own, others = every[stream :: self.num_streams], every[every % self.num_streams != stream]
        broken: list[SkippedFile] = []
        resumed = (shards, first) != (0, 0)  # then a row was found before the position
        while True:
            found = resumed and shards < len(own)
            order = self._shuffled(own, "shards", stream, epoch) + self._shuffled(others, "others", stream, epoch)
            for number, shard in list(enumerate(order))[shards:]:
                if found and number == len(own):
                    break
                for row, item in self._read(epoch, shard, first):
                    if not isinstance(item, SkippedFile):
                        yield item | Item(broken=broken), (stream, epoch, number, row + 1)
                        found, broken = True, []
                        continue
                    broken.append(item)
                    if len(broken) == MAX_ATTEMPTS:
                        raise unreadable(broken)
                first = 0
            if not found and not resumed:
                raise unreadable(broken) if broken else PartitaError(self._no_rows())
            epoch, shards, resumed = epoch + 1, 0, False

    def _no_rows(self) -> str:
        where = self.crops.config.where
        return f"no row of the stream has {where}; change data.where" if where else "the data set holds no rows"

    def _read(self, epoch: int, shard: int, first: int) -> Iterator[tuple[int, Item | SkippedFile]]:
        """The crops of a shard with their row numbers, and the reasons for those that cannot be read."""
        row = first
        try:
            for row, columns in self._rows(epoch, shard, first):
                try:
                    item = self.crops.cut(columns, row, self._generator("crop", epoch, shard, row))
                except PartitaError as error:
                    item = SkippedFile(error, row_name(columns, row))
                yield row, item
        except PartitaError as error:
            yield row, SkippedFile(error, shard_name(self.dataset, shard))

    def _rows(self, epoch: int, shard: int, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The shuffled rows of a shard, from number `first` in their shuffled order on, with these numbers."""
        begin, file = first - first % self.block, shard_name(self.dataset, shard)
        for columns in read_blocks(self.dataset, shard, self.block, skip=begin):
            count = len(next(iter(columns.values())))
            order = torch.randperm(count, generator=self._generator("rows", epoch, shard, begin)).tolist()
            for number in range(first - begin, count):
                source = order[number]
                row = {name: values[source] for name, values in columns.items()}
                name = row_name(row, f"{begin + source} of {Path(file).name}")
                yield begin + number, row | {"file_name": name}
            begin += count
            first = begin

    def _shuffled(self, shards: torch.Tensor, *key: int | str) -> list[int]:
        return shards[torch.randperm(len(shards), generator=self._generator(*key))].tolist()

    def _generator(self, *key: int | str) -> Generator:
        return Generator().manual_seed(hashed_seed(self.seed, *key))


class StreamLoader(DataLoader):
    """`DataLoader` of the batches of a `CropStream` that tracks the position of each stream.

    Attributes:
        positions: position of each stream after the batches taken; that of the next batch first.
        classes: class names of each class column in `DataConfig.columns`, by index.
    """

    def __init__(self, stream: CropStream, **settings: Any) -> None:
        self.positions = tuple(stream.positions)
        self.classes = stream.crops.columns.classes
        super().__init__(stream, batch_size=None, **settings)

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for found in super().__iter__():
            if isinstance(found, PartitaError):
                raise found
            batch, position = found
            self.positions = (*self.positions[1:], position)
            yield batch


def initial_positions(shards: int, *, workers: int, rank: int, world_size: int) -> list[StreamPosition]:
    """Positions of the streams of a process at the start of a run: one per worker, fewer if there are few shards.

    Raises:
        PartitaError: there are more processes than shards.
    """
    if shards < world_size:
        needed = f"{world_size} processes need one each; split it into more"
        raise PartitaError(f"the stream has {shards} shards, and {needed}")
    count = max(1, min(workers, shards // world_size))
    return [(rank * count + worker, 0, 0, 0) for worker in range(count)]
