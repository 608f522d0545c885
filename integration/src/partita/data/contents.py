"""Contents of files, as far as needed to notice that one was replaced: size and a few pieces, not every byte."""

import os
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .corpus.read import CONTENT
from .datasets import row_source
from .sources.listing import spread_rows

if TYPE_CHECKING:
    from datasets import Dataset

# Of a file that is longer than so many pieces of so many bytes, as many are looked at, the first and the last included.
_PIECES, _BYTES = 16, 4096

# Files of a data set that are looked at where there are more; to open millions takes hours.
_FILES = 256


def row_contents(row: Mapping[str, Any], index: int) -> str | None:
    """A digest of the audio, or of the stored latents, of a row; None where there is none to be read."""
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


def sample_contents(dataset: "Dataset") -> dict[str, str]:
    """Digests of some files by name, spread over a data set: of all where there are no more than a few hundred."""
    columns = {"file_name", "audio", *CONTENT}
    if "file_name" not in dataset.column_names:
        return {}
    rows = dataset.select_columns([name for name in dataset.column_names if name in columns])
    return dict(_named((rows[i], i) for i in spread_rows(len(rows), _FILES)))


def changed_file(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> str | None:
    """The first file that has other contents than before; those that could not be read either time do not count."""
    for name, digest in now.items():
        if digest is not None and (before.get(name) or digest) != digest:
            return name
    return None


def _named(rows: Iterable[tuple[Any, int]]) -> Iterator[tuple[str, str]]:
    for row, index in rows:
        digest = row_contents(row, index)
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
