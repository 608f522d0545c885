"""Notes of shards: what a shard records of its files, by which is known which shards are still to be made."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from partita_core import Codec, PartitaError

from partita.data.contents import changed_file, row_contents
from partita.data.datasets import row_name, row_source
from partita.data.encode_files import encode_files
from partita.data.sources.listing import spread_rows

from .plan import Shard, all_shards, shard_rows
from .read import CORPUS, CorpusRecord, shard_path

if TYPE_CHECKING:
    from datasets import Dataset

NOTE = b"partita"
"""Where a shard keeps its note, among the metadata of its schema."""

# Rows of a shard whose contents are looked at where they lie in tables, and threads that look.
_LOOKED_AT, _THREADS = 16, 8


class Note(NamedTuple):
    """What a shard says of itself.

    Attributes:
        rows: how many there are.
        samples: of audio in them.
        broken: reasons why files were left out.
        left: numbers of the rows of the source, within the shard, that were left out.
        contents: digests of all its files when they were encoded.
    """

    rows: int
    samples: int
    broken: list[str]
    left: list[int]
    contents: list[str | None]


def read_note(path: Path) -> Note | None:
    """The note of a shard; None where there is none that can be read, and so no shard."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            note = json.loads((file.schema_arrow.metadata or {})[NOTE])
            lists = note["broken"], note.get("left", []), note.get("contents", [])
            return Note(file.metadata.num_rows, note["samples"], *lists)
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's are among them
        return None


def shards_to_make(codec: Codec, datasets: Mapping[str, "Dataset"], record: CorpusRecord, output: Path) -> list[Shard]:
    """The shards that are not there, and those of which a file was left out that can be encoded now.

    Raises:
        PartitaError: a file has other contents than when it was encoded.
    """
    left = []
    for shard in all_shards(record):
        note = read_note(shard_path(output, *shard))
        rows = sources_of(datasets[shard[0]].select(shard_rows(record, shard)))
        if note is not None:
            _check_contents(rows, note, output)
        if note is None or _can_be_encoded(codec, rows, note, record):
            left.append(shard)
    return left


def sources_of(dataset: "Dataset") -> "Dataset":
    """The columns of a data set by which its files are read."""
    return dataset.select_columns(["audio", "file_name"])


def _check_contents(rows: "Dataset", note: Note, output: Path) -> None:
    if len(note.contents) != len(rows):
        return  # of a corpus without a word on it
    held = rows[0]["audio"]["bytes"] is not None  # to look at a file within a table, all of it has to be read
    picked = [i for i in spread_rows(len(rows), _LOOKED_AT if held else len(rows)) if i not in note.left]
    named = {i: row_name(rows[i], i) for i in picked}
    with ThreadPoolExecutor(_THREADS) as pool:
        now = dict(zip(named.values(), pool.map(lambda i: row_contents(rows[i], i), picked)))
    if changed := changed_file({named[i]: note.contents[i] for i in picked}, now):
        raise PartitaError(
            f"{output}: {changed} has other contents now than when it was encoded; name another folder, or put it back"
        )


def _can_be_encoded(codec: Codec, rows: "Dataset", note: Note, record: CorpusRecord) -> bool:
    """Whether one of the files that a shard lacks can be encoded now."""
    settings = {"layout": record.layout, "num_quantizers": record.num_quantizers}
    left = [row for row in note.left if row < len(rows)]
    found = encode_files(codec, lambda i: row_source(rows[left[i]], left[i]), len(left), **settings)
    return any(not isinstance(result, PartitaError) for _, result in found)


def discard_corpus(output: Path, record: CorpusRecord) -> None:
    """Remove a corpus; what else lies in its folder stays."""
    files = [shard_path(output, *shard) for shard in all_shards(record)]
    for file in (*files, output / "README.md", output / CORPUS):
        file.unlink(missing_ok=True)
    for folder in (*(output / split for split in record.splits), output):
        with suppress(OSError):
            folder.rmdir()
