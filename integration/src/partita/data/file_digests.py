"""Digests of files by size and samples of their bytes, which reveal a replaced file without reading it entirely."""

import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .corpus.spec import CONTENT
from .datasets import row_source
from .sources.listing import spread_rows

if TYPE_CHECKING:
    from datasets import Dataset

# Pieces of a file that are read, including the first and the last, and bytes per piece.
_PIECES, _BYTES = 16, 4096

# Maximum number of files of a data set that are read; opening millions takes hours.
_MAX_FILES = 256


def row_digest(row: Mapping[str, Any], index: int) -> str | None:
    """Digest of the audio, or of the stored latents, of a row; None if they cannot be read."""
    if "audio" not in row:
        digest = sha256()
        for name in CONTENT:
            digest.update(_pieces(row.get(name) or b""))
        return digest.hexdigest()[:16]
    source: Any = row_source(row, index)
    if source["bytes"] is not None:
        return sha256(_pieces(source["bytes"])).hexdigest()[:16]
    try:
        with open(source["path"], "rb") as file:
            return sha256(_pieces_of(file, os.fstat(file.fileno()).st_size)).hexdigest()[:16]
    except OSError:
        return None


def sample_digests(dataset: "Dataset") -> dict[str, str]:
    """Digests of up to 256 files, spread over a data set, by name."""
    columns = {"file_name", "audio", *CONTENT}
    if "file_name" not in dataset.column_names:
        return {}
    rows = dataset.select_columns([name for name in dataset.column_names if name in columns])
    return dict(_named((rows[i], i) for i in spread_rows(len(rows), _MAX_FILES)))


def changed_file(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> str | None:
    """The first file whose digest has changed; files that could not be read at either time do not count."""
    for name, digest in now.items():
        if digest is not None and (before.get(name) or digest) != digest:
            return name
    return None


def _named(rows: Iterable[tuple[Any, int]]) -> Iterator[tuple[str, str]]:
    for row, index in rows:
        digest = row_digest(row, index)
        if digest is not None:
            yield str(row["file_name"]), digest


def _pieces(data: bytes) -> bytes:
    return _pieces_of(BytesIO(data), len(data))


def _pieces_of(file: Any, size: int) -> bytes:
    if size <= _PIECES * _BYTES:
        return b"%d:" % size + file.read()
    found = [b"%d:" % size]
    for piece in range(_PIECES):
        file.seek(piece * (size - _BYTES) // (_PIECES - 1))
        found.append(file.read(_BYTES))
    return b"".join(found)
