"""The files of a folder: one walk, and what of it is audio, tables, archives, or audio in formats that are not read."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from partita_core import PartitaError

from partita.data.audio.files import SUFFIXES
from partita.data.notes import counted, note

# Audio, or film with audio, in containers that libsndfile does not open.
UNREAD = (
    *(".3gp", ".aac", ".ac3", ".amr", ".ape", ".dsf", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp2", ".mp4", ".mpc"),
    *(".ra", ".shn", ".sph", ".tta", ".webm", ".wma", ".wv"),
)

# Metadata that is read, and other tables that may be meant as such.
_METADATA, _OTHER_METADATA = (".csv", ".jsonl"), (".json", ".tsv", ".xlsx")

# Times that one folder may be reached over links; more of them lead in circles.
_MAX_VISITS = 16


class Listing(NamedTuple):
    """The files under a folder, relative to it with forward slashes, sorted; hidden ones are left out.

    Attributes:
        folder: the folder.
        audio: files with a suffix that is read.
        unread: audio in other formats.
        parquet: Parquet files.
        tar: archives.
        metadata: files called metadata.csv or metadata.jsonl, in any case.
    """

    folder: Path
    audio: list[str]
    unread: list[str]
    parquet: list[str]
    tar: list[str]
    metadata: list[str]


def list_folder(folder: Path) -> Listing:
    """List a folder; linked folders are followed, and what is not read is noted.

    Raises:
        PartitaError: links lead in circles, or the name of an audio file is not UTF-8, which no table holds.
    """
    names = sorted(_walk(folder))
    suffixes = [os.path.splitext(name)[1].lower() for name in names]

    def having(*wanted: str) -> list[str]:
        return [name for name, suffix in zip(names, suffixes) if suffix in wanted]

    def metadata(*wanted: str) -> list[str]:
        return [name for name in having(*wanted) if Path(name).stem.casefold() == "metadata"]

    columns = having(*SUFFIXES), having(*UNREAD), having(".parquet"), having(".tar"), metadata(*_METADATA)
    found = Listing(folder, *columns)
    for name in found.audio:
        try:
            f"{folder / name}".encode()
        except UnicodeEncodeError:
            raise PartitaError(f"{os.fsencode(folder / name)!r}: the name is not UTF-8; rename the file") from None
    if others := metadata(*_OTHER_METADATA):
        note(f"{folder}: left out {counted(others, 'table')} of metadata; metadata.csv and metadata.jsonl are read")
    files = set(found.audio)
    if dangling := [name for name in names if name not in files and not os.path.exists(folder / name)]:
        note(f"{folder}: left out {counted(dangling, 'link')} that lead nowhere")
    if found.unread:
        kinds = Counter(os.path.splitext(name)[1].lower() for name in found.unread)
        which = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
        left = counted(found.unread, "file")
        note(f"{folder}: left out {left} in formats that are not read ({which}); convert to .flac or .wav")
    return found


def spread_rows(total: int, count: int) -> list[int]:
    """At most `count` of `total` rows, spread evenly from the first on."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def _walk(folder: Path) -> list[str]:
    found: list[str] = []
    closed: list[str] = []
    visits: Counter[tuple[int, int]] = Counter()
    trails: dict[str, tuple[tuple[int, int], ...]] = {
        str(folder): (_identity(str(folder)),)
    }  # the folders that lead to one, and itself

    def refused(error: OSError) -> None:
        closed.append(os.path.relpath(error.filename or folder, folder))

    for where, folders, names in os.walk(folder, followlinks=True, onerror=refused):
        trail, relative = trails.pop(where), Path(where).relative_to(folder)
        kept = []
        for name in sorted(folders):
            path = os.path.join(where, name)
            identity = _identity(path)
            if name.startswith(".") or identity in trail:  # a link to what it lies in
                continue
            visits[identity] += 1
            if visits[identity] > _MAX_VISITS:
                raise PartitaError(f"{path}: links lead here in more than {_MAX_VISITS} ways; remove some of them")
            trails[path] = (*trail, identity)
            kept.append(name)
        folders[:] = kept
        found += [(relative / name).as_posix() for name in names if not name.startswith(".")]
    if closed:
        note(f"{folder}: left out {counted(sorted(closed), 'folder')} without permission to open")
    return found


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
