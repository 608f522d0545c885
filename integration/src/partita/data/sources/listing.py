"""Listing a folder: its audio files, tables, archives, metadata, and audio in unsupported formats."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from partita_core import PartitaError

from partita.data.audio.files import SUFFIXES
from partita.data.messages import counted, warn_once

# Audio, or video with audio, in containers that libsndfile does not open.
UNSUPPORTED = (
    *(".3gp", ".aac", ".ac3", ".amr", ".ape", ".dsf", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp2", ".mp4", ".mpc"),
    *(".ra", ".shn", ".sph", ".tta", ".webm", ".wma", ".wv"),
)

# Tables read as metadata, and others that may be meant as such.
_METADATA, _OTHER_METADATA = (".csv", ".jsonl"), (".json", ".tsv", ".xlsx")

# Times that one folder may be reached through links; more indicate a cycle.
_MAX_VISITS = 16


class Listing(NamedTuple):
    """The files under a folder, relative to it with forward slashes, sorted, without hidden files.

    Attributes:
        folder: the folder.
        audio: audio files in supported formats.
        unsupported: audio files in other formats.
        parquet: Parquet files.
        tar: archives.
        metadata: files named metadata.csv or metadata.jsonl, in any case.
    """

    folder: Path
    audio: list[str]
    unsupported: list[str]
    parquet: list[str]
    tar: list[str]
    metadata: list[str]


def list_folder(folder: Path) -> Listing:
    """List a folder; linked folders are followed, and files left out are reported.

    Raises:
        PartitaError: links form a cycle, or the name of an audio file is not UTF-8, which tables cannot hold.
    """
    names = sorted(_walk(folder))
    suffixes = [os.path.splitext(name)[1].lower() for name in names]

    def having(*wanted: str) -> list[str]:
        return [name for name, suffix in zip(names, suffixes) if suffix in wanted]

    def metadata(*wanted: str) -> list[str]:
        return [name for name in having(*wanted) if Path(name).stem.casefold() == "metadata"]

    columns = having(*SUFFIXES), having(*UNSUPPORTED), having(".parquet"), having(".tar"), metadata(*_METADATA)
    found = Listing(folder, *columns)
    for name in found.audio:
        try:
            f"{folder / name}".encode()
        except UnicodeEncodeError:
            raise PartitaError(f"{os.fsencode(folder / name)!r}: the name is not UTF-8; rename the file") from None
    if others := metadata(*_OTHER_METADATA):
        which = "only metadata.csv and metadata.jsonl are read"
        warn_once(f"{folder}: left out {counted(others, 'table')} of metadata; {which}")
    files = set(found.audio)
    if dangling := [name for name in names if name not in files and not os.path.exists(folder / name)]:
        warn_once(f"{folder}: left out {counted(dangling, 'broken link')}")
    if found.unsupported:
        kinds = Counter(os.path.splitext(name)[1].lower() for name in found.unsupported)
        which = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
        left = counted(found.unsupported, "file")
        warn_once(f"{folder}: left out {left} in unsupported formats ({which}); convert them to .flac or .wav")
    return found


def spread_rows(total: int, count: int) -> list[int]:
    """Numbers of at most `count` of `total` rows, spread evenly from the first on."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def _walk(folder: Path) -> list[str]:
    found: list[str] = []
    unreadable: list[str] = []
    visits: Counter[tuple[int, int]] = Counter()
    # For each folder, the identities of those above it and its own.
    trails: dict[str, tuple[tuple[int, int], ...]] = {str(folder): (_identity(str(folder)),)}

    def on_error(error: OSError) -> None:
        unreadable.append(os.path.relpath(error.filename or folder, folder))

    for where, folders, names in os.walk(folder, followlinks=True, onerror=on_error):
        trail, relative = trails.pop(where), Path(where).relative_to(folder)
        kept = []
        for name in sorted(folders):
            path = os.path.join(where, name)
            identity = _identity(path)
            if name.startswith(".") or identity in trail:  # hidden, or a link to a folder above
                continue
            visits[identity] += 1
            if visits[identity] > _MAX_VISITS:
                raise PartitaError(f"{path}: is reached through more than {_MAX_VISITS} links; remove some of them")
            trails[path] = (*trail, identity)
            kept.append(name)
        folders[:] = kept
        found += [(relative / name).as_posix() for name in names if not name.startswith(".")]
    if unreadable:
        warn_once(f"{folder}: left out {counted(sorted(unreadable), 'folder')} without read permission")
    return found


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
