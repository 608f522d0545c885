"""Streams: rows of shards, one after the other, for sets too large to be copied to a cache or read at random."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import PartitaError, hashed_seed
from torch import Generator
from torch.utils.data import DataLoader, get_worker_info

from .corpus.read import with_cause
from .crops import ATTEMPTS, Batch, Crops, Item, LatentCrops, SkippedFile, collate
from .datasets import row_name

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Rows of a stream that evaluations and statistics are made of.
_LOOKED_AT = 16

Place = tuple[int, int, int, int]
"""Where a stream of shards stands: which of all streams it is, its epoch, the shards it has read in it, and the rows of
the shard that is next."""


class CropStream(torch.utils.data.IterableDataset):
    """Batches of crops of a stream, without end, and where each left it.

    The shards are dealt out to the streams of all processes and their workers, once for the whole run: so no two read
    the same, and none is read twice in an epoch. In each epoch a stream takes its shards in another order, and in each
    shard mixes `block` rows at a time. A row that cannot be read is passed over and named in `broken` of the next. A
    stream none of whose shards can be read goes on with those of the others, so that no process is without a batch.

    Args:
        crops: what makes items of rows.
        dataset: the stream.
        share: crops of a batch.
        block: rows that are mixed.
        seed: of orders.
        streams: of all processes and workers.
        places: where each stream of this process stands, that of the next batch first.
    """

    def __init__(
        self,
        crops: Crops | LatentCrops,
        dataset: "IterableDataset",
        *,
        share: int,
        block: int,
        seed: int,
        streams: int,
        places: Sequence[Place],
    ) -> None:
        self.crops, self.dataset, self.share, self.block, self.seed = crops, dataset, share, block, seed
        self.streams, self.places = streams, list(places)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        place = self.places[0 if worker is None else worker.id]
        rows, items = self._items(place), []
        while True:
            try:
                item, place = next(rows)
            except PartitaError as error:
                yield error  # raised in a worker, its one line would come out inside a traceback
                return
            items.append(item)
            if len(items) == self.share:
                yield collate(items), place
                items = []

    def _items(self, place: Place) -> Iterator[tuple[Item, Place]]:
        """The crops of one stream from `place` on, each with the place behind it."""
        stream, epoch, shards, first = place
        every = torch.arange(self.dataset.num_shards)
        mine, others = every[stream :: self.streams], every[every % self.streams != stream]
        broken: list[SkippedFile] = []
        resumed = (shards, first) != (0, 0)  # then something was found before the place
        while True:
            found = resumed and shards < len(mine)
            order = self._mixed(mine, "shards", stream, epoch) + self._mixed(others, "others", stream, epoch)
            for number, shard in list(enumerate(order))[shards:]:
                if found and number == len(mine):
                    break
                for row, item in self._read(epoch, shard, first):
                    if not isinstance(item, SkippedFile):
                        yield item | Item(broken=broken), (stream, epoch, number, row + 1)
                        found, broken = True, []
                        continue
                    broken.append(item)
                    if len(broken) == ATTEMPTS:
                        raise _unreadable(broken)
                first = 0
            if not found and not resumed:
                raise _unreadable(broken) if broken else PartitaError("the data set holds no rows")
            epoch, shards, resumed = epoch + 1, 0, False

    def _read(self, epoch: int, shard: int, first: int) -> Iterator[tuple[int, Item | SkippedFile]]:
        """The crops of a shard, each with the number of its row, and what could not be read in place of some."""
        row = first
        try:
            for row, columns in self._rows(epoch, shard, first):
                try:
                    item = self.crops.cut(columns, row, self._generator("crop", epoch, shard, row))
                except PartitaError as error:
                    item = SkippedFile(error, row_name(columns, row))
                yield row, item
        except PartitaError as error:
            yield row, SkippedFile(error, _shard_name(self.dataset, shard))

    def _rows(self, epoch: int, shard: int, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of a shard from the one on that comes as number `first`, with the numbers in which they come."""
        begin, file = first - first % self.block, _shard_name(self.dataset, shard)
        rows = self.dataset.shard(num_shards=self.dataset.num_shards, index=shard).skip(begin)
        for columns in _whole(rows.iter(batch_size=self.block), file):
            count = len(next(iter(columns.values())))
            order = torch.randperm(count, generator=self._generator("rows", epoch, shard, begin)).tolist()
            for number in range(first - begin, count):
                place = order[number]
                row = {name: values[place] for name, values in columns.items()}
                called = row_name(row, f"{begin + place} of {Path(file).name}")
                yield begin + number, row | {"file_name": called}
            begin += count
            first = begin

    def _mixed(self, shards: torch.Tensor, *key: int | str) -> list[int]:
        return shards[torch.randperm(len(shards), generator=self._generator(*key))].tolist()

    def _generator(self, *key: int | str) -> Generator:
        return Generator().manual_seed(hashed_seed(self.seed, *key))


class StreamLoader(DataLoader):
    """A `DataLoader` of the batches of a `CropStream`; knows where the streams of this process stand.

    Attributes:
        places: where each stream stands behind the batches that were taken, that of the next batch first.
    """

    def __init__(self, stream: CropStream, **settings: Any) -> None:
        """With as many workers as the stream has places, or none."""
        self.places = tuple(stream.places)
        super().__init__(stream, batch_size=None, **settings)

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for found in super().__iter__():
            if isinstance(found, PartitaError):
                raise found
            batch, place = found
            self.places = (*self.places[1:], place)
            yield batch


def first_places(shards: int, *, workers: int, rank: int, world_size: int) -> list[Place]:
    """The streams of a process at the start of a run: one for each worker, or fewer where there are few shards.

    Raises:
        PartitaError: there are more processes than shards.
    """
    if shards < world_size:
        needed = f"{world_size} processes need one each; cut it into more"
        raise PartitaError(f"the stream has {shards} shards, and {needed}")
    count = max(1, min(workers, shards // world_size))
    return [(rank * count + worker, 0, 0, 0) for worker in range(count)]


def first_rows(dataset: "Dataset | IterableDataset") -> "Dataset":
    """A data set as it is; of a stream, the first rows of each shard, as many as are looked at or listened to."""
    from datasets import Dataset, IterableDataset

    if not isinstance(dataset, IterableDataset):
        return dataset
    shards = min(dataset.num_shards, _LOOKED_AT)
    each = -(-_LOOKED_AT // shards)
    rows: list[dict[str, Any]] = []
    for shard in range(shards):
        part = dataset.shard(num_shards=dataset.num_shards, index=shard)
        with suppress(PartitaError):  # what is damaged is named when it is trained on
            for columns in _whole(part.take(each).iter(batch_size=each), _shard_name(dataset, shard)):
                rows += [dict(zip(columns, values)) for values in zip(*columns.values())]
    for number, row in enumerate(rows):
        row["file_name"] = row_name(row, number)
    found = Dataset.from_list(rows)
    found.info.description = dataset.info.description  # says what the rows of a corpus mean
    return found


def _whole(blocks: Iterator[dict[str, Any]], file: str) -> Iterator[dict[str, Any]]:
    """The blocks of a shard, up to where it is damaged, which is said."""
    try:
        yield from blocks
    except (OSError, ValueError) as error:  # pyarrow's are among them
        raise PartitaError(f"{file}: is damaged ({with_cause(error)})") from None


def _shard_name(dataset: "IterableDataset", shard: int) -> str:
    """The file of a shard. `datasets` tells it to nobody, and where it keeps it may change: then it is a number."""
    files = getattr(getattr(dataset, "_ex_iterable", None), "kwargs", {}).get("files", ())
    return str(files[shard]) if len(files) == dataset.num_shards else f"shard {shard} of the stream"


def _unreadable(broken: Sequence[str]) -> PartitaError:
    return PartitaError(f"{len(broken)} files in a row cannot be read; the first: {broken[0]}")
