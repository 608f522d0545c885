"""Metadata of the shards of a corpus: contents and failures of their files, which decide what is encoded again."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from partita_core import Codec, PartitaError

from partita.data.datasets import row_name, row_source
from partita.data.file_digests import changed_file, row_digest
from partita.data.file_encoding import encode_files
from partita.data.sources.listing import spread_rows

from .plan import Shard, all_shards, shard_rows
from .record import CorpusRecord, shard_path
from .spec import CORPUS

if TYPE_CHECKING:
    from datasets import Dataset

SHARD_KEY = b"partita"
"""Key of a shard's metadata in its Parquet schema."""

# Rows of a shard whose contents are checked if the source is tables, and number of reading threads.
_CHECKED_ROWS, _THREADS = 16, 8


class ShardMetadata(NamedTuple):
    """Metadata of a shard.

    Attributes:
        rows: number of rows.
        samples: samples of audio in them.
        broken: reasons for the files that were left out.
        left: rows of the source, counted within the shard, that were left out.
        contents: digests of all files when they were encoded.
    """

    rows: int
    samples: int
    broken: list[str]
    left: list[int]
    contents: list[str | None]


def read_shard_metadata(path: Path) -> ShardMetadata | None:
    """Metadata of a shard; None if it cannot be read, so the shard counts as missing."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found = json.loads((file.schema_arrow.metadata or {})[SHARD_KEY])
            lists = found["broken"], found.get("left", []), found.get("contents", [])
            return ShardMetadata(file.metadata.num_rows, found["samples"], *lists)
    except (OSError, ValueError, KeyError, TypeError):  # includes those of pyarrow
        return None


def shards_to_make(codec: Codec, datasets: Mapping[str, "Dataset"], record: CorpusRecord, output: Path) -> list[Shard]:
    """The missing shards, and those that lack a file which can be encoded now.

    Raises:
        PartitaError: a file has other contents than when it was encoded.
    """
    left = []
    for shard in all_shards(record):
        metadata = read_shard_metadata(shard_path(output, *shard))
        rows = sources_of(datasets[shard[0]].select(shard_rows(record, shard)))
        if metadata is not None:
            _check_contents(rows, metadata, output)
        if metadata is None or _can_be_encoded(codec, rows, metadata, record):
            left.append(shard)
    return left


def sources_of(dataset: "Dataset") -> "Dataset":
    """The columns of a data set needed to read its files."""
    return dataset.select_columns(["audio", "file_name"])


def _check_contents(rows: "Dataset", metadata: ShardMetadata, output: Path) -> None:
    if len(metadata.contents) != len(rows):
        return  # not recorded
    in_table = rows[0]["audio"]["bytes"] is not None  # then a file must be read entirely to check it
    picked = [i for i in spread_rows(len(rows), _CHECKED_ROWS if in_table else len(rows)) if i not in metadata.left]
    named = {i: row_name(rows[i], i) for i in picked}
    with ThreadPoolExecutor(_THREADS) as pool:
        now = dict(zip(named.values(), pool.map(lambda i: row_digest(rows[i], i), picked)))
    if changed := changed_file({named[i]: metadata.contents[i] for i in picked}, now):
        advice = "restore the file, or choose another folder"
        raise PartitaError(f"{output}: {changed} has changed since it was encoded; {advice}")


def _can_be_encoded(codec: Codec, rows: "Dataset", metadata: ShardMetadata, record: CorpusRecord) -> bool:
    """True if one of the files that a shard lacks can be encoded now."""
    settings = {"layout": record.layout, "num_quantizers": record.num_quantizers}
    left = [row for row in metadata.left if row < len(rows)]
    found = encode_files(codec, lambda i: row_source(rows[left[i]], left[i]), len(left), **settings)
    return any(not isinstance(result, PartitaError) for _, result in found)


def discard_corpus(output: Path, record: CorpusRecord) -> None:
    """Remove a corpus; other files in its folder stay."""
    files = [shard_path(output, *shard) for shard in all_shards(record)]
    for file in (*files, output / "README.md", output / CORPUS):
        file.unlink(missing_ok=True)
    for folder in (*(output / split for split in record.splits), output):
        with suppress(OSError):
            folder.rmdir()
