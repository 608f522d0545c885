"""Reading the shards of a streamed data set, with errors that name the damaged file."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from partita_core import PartitaError

from .datasets import row_name
from .messages import with_cause

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Rows of a stream that evaluations and statistics are computed from; rows of a column read at a time.
_FIRST_ROWS, _COLUMN_ROWS = 16, 1024


def read_blocks(dataset: "IterableDataset", shard: int, size: int, *, skip: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of one shard in blocks of `size` (the last may be shorter), each as a dict of columns.

    Args:
        dataset: the stream.
        shard: number of the shard.
        size: rows per block.
        skip: rows at the start of the shard to leave out.

    Raises:
        PartitaError: the shard is damaged from here on; its file is named.
    """
    rows = dataset.shard(num_shards=dataset.num_shards, index=shard).skip(skip)
    try:
        yield from rows.iter(batch_size=size)
    except (OSError, ValueError) as error:  # includes those of pyarrow
        raise PartitaError(f"{shard_name(dataset, shard)}: is damaged ({with_cause(error)})") from None


def read_column(dataset: "IterableDataset", name: str) -> list[Any]:
    """All values of one column of a stream; damaged shards count as far as they can be read."""
    column, values = dataset.select_columns([name]), []
    for shard in range(column.num_shards):
        with suppress(PartitaError):  # reported when training reads the shard
            for block in read_blocks(column, shard, _COLUMN_ROWS):
                values += block[name]
    return values


def first_rows(dataset: "Dataset | IterableDataset") -> "Dataset":
    """The data set itself; of a stream, the first rows of its first shards as a data set in memory."""
    from datasets import Dataset, IterableDataset

    if not isinstance(dataset, IterableDataset):
        return dataset
    shards = min(dataset.num_shards, _FIRST_ROWS)
    count = -(-_FIRST_ROWS // shards)
    rows: list[dict[str, Any]] = []
    for shard in range(shards):
        with suppress(PartitaError):  # reported when training reads the shard
            block = next(read_blocks(dataset, shard, count), {})
            rows += [dict(zip(block, values)) for values in zip(*block.values())]
    for number, row in enumerate(rows):
        row["file_name"] = row_name(row, number)
    found = Dataset.from_list(rows)
    found.info.description = dataset.info.description  # describes the rows of a corpus
    return found


def shard_name(dataset: "IterableDataset", shard: int) -> str:
    """File of a shard, or its number: `datasets` has no public interface for the file, so its place may change."""
    inner: Any = getattr(dataset, "_ex_iterable", None)
    while hasattr(inner, "ex_iterable"):
        inner = inner.ex_iterable
    files = getattr(inner, "kwargs", {}).get("files", ())
    return str(files[shard]) if len(files) == dataset.num_shards else f"shard {shard} of the stream"
