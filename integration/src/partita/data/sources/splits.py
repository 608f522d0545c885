"""Division of a data set into splits by the names of its folders and files."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from partita_core import PartitaError

from partita.data.messages import counted, warn_once

SPLITS = ("train", "validation", "test")

_SYNONYMS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Validation in some sets, test in others; "development" holds training files in some.
_AMBIGUOUS = ("eval", "evaluation", "development", "holdout")

_REMEDY = "name the folders (or links to them) train, validation and test, or pass one of them as the data"


class Division(NamedTuple):
    """Division of files into splits.

    Attributes:
        splits: files of each split, in the usual order of splits; empty if the files are not divided.
        rest: files that belong to no split.
    """

    splits: dict[str, list[str]]
    rest: list[str]


def canonical_split(name: str) -> str | None:
    """The split that a name stands for: train, validation or test, in any case; None for other names."""
    return _SYNONYMS.get(name.casefold())


def chosen_split(wanted: str, names: Sequence[str]) -> str | None:
    """The one of `names` that equals `wanted` or is a synonym of it; None if there is none.

    Raises:
        PartitaError: several names are synonyms of it.
    """
    if wanted in names:
        return wanted
    meant = canonical_split(wanted)
    found = [name for name in names if meant is not None and canonical_split(name) == meant]
    if len(found) > 1:
        raise PartitaError(f"the split {wanted!r} may be {' or '.join(map(repr, found))}; choose one of these")
    return found[0] if found else None


def divide_folders(folder: Path, files: list[str]) -> Division:
    """Divide files by their top-level folders or, for a folder of data sets, by the folders below these.

    Args:
        folder: the folder, for messages.
        files: relative paths with forward slashes, sorted.

    Raises:
        PartitaError: two folders are the same split, or names of folders are ambiguous.
    """
    found = _divide(folder, files)
    if found.rest:
        left = counted(found.rest, "audio file")
        warn_once(f"{folder}: left out {left} outside the splits {', '.join(found.splits)}")
    return found


def divide_tables(folder: Path, files: list[str]) -> Division:
    """Divide tables by words in the names of the files and their folders, as in `train-00000-of-00002.parquet`.

    Raises:
        PartitaError: a name stands for several splits, or is ambiguous.
    """
    splits: dict[str, list[str]] = {}
    rest = []
    for file in files:
        words = {word for part in file.rsplit(".", 1)[0].split("/") for word in _words(part)}
        kinds = {_SYNONYMS[word] for word in words if word in _SYNONYMS}
        if len(kinds) > 1 or (not kinds and words & set(_AMBIGUOUS)):
            advice = "begin file names with train-, validation- or test-"
            raise PartitaError(f"{folder}: {file!r} may belong to several splits; {advice}")
        if kinds:
            splits.setdefault(kinds.pop(), []).append(file)
        else:
            rest.append(file)
    if splits and rest:
        warn_once(f"{folder}: left out {counted(rest, 'file')} outside the splits {', '.join(splits)}")
    return Division(_ordered(splits), rest if splits else [])


def _divide(folder: Path, files: list[str]) -> Division:
    tops = _tops(files)
    splits = _exact(folder, tops)
    similar = {
        top: kind for top in tops if canonical_split(top) is None and (kind := _similar(top)) not in ("", "train")
    }
    doubtful = [
        top for top, kind in similar.items() if not ({kind} if kind else {"validation", "test"}) <= splits.keys()
    ]
    if doubtful:
        known = f", next to {', '.join(splits)}" if splits else ""
        raise PartitaError(f"{folder}: {doubtful[0]!r} looks like a split{known}; {_REMEDY}")
    if splits:
        inside = {split: [name for name in files if name.startswith(f"{top}/")] for split, top in splits.items()}
        return Division(_ordered(inside), [name for name in files if name.split("/")[0] not in splits.values()])
    return _divide_sets(folder, files, tops)


def _divide_sets(folder: Path, files: list[str], tops: list[str]) -> Division:
    """The union of the splits of sub-folders, if they have any."""
    parts = {top: [name[len(top) + 1 :] for name in files if name.startswith(f"{top}/")] for top in tops}
    found = {top: _exact(folder / top, _tops(names)) for top, names in parts.items()}
    kinds = {split for splits in found.values() for split in splits}
    without = [top for top, splits in found.items() if not splits]
    if kinds and not without:
        divided = {top: _divide(folder / top, names) for top, names in parts.items()}
        inside: dict[str, list[str]] = {}
        rest = [name for name in files if "/" not in name]
        for top, part in divided.items():
            rest += [f"{top}/{name}" for name in part.rest]
            for split, names in part.splits.items():
                inside.setdefault(split, []).extend(f"{top}/{name}" for name in names)
        return Division(_ordered(inside), sorted(rest))
    if kinds - {"train"}:
        which = next(
            f"{top}/{name}" for top, splits in found.items() for split, name in splits.items() if split != "train"
        )
        why = f"{which!r} looks like a split, but {without[0]!r} has no splits"
        raise PartitaError(f"{folder}: {why}; give every folder splits, pass one of them, or rename {which!r}")
    _check_nested(folder, files)
    return Division({}, [])


def _check_nested(folder: Path, files: list[str]) -> None:
    """Raise an error for splits further down, since their test files would be trained on."""
    children: dict[str, set[str]] = {}
    for file in files:
        parts = file.split("/")[:-1]
        for depth in range(1, len(parts)):
            children.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for parent, names in sorted(children.items()):
        kinds = {canonical_split(name) or _similar(name) for name in names} - {""}
        if len(kinds) > 1:
            which = " and ".join(repr(name) for name in sorted(names) if canonical_split(name) or _similar(name))
            raise PartitaError(
                f"{folder}: {which} in {parent!r} look like splits; pass {folder / parent}, or {_REMEDY}"
            )


def _exact(folder: Path, tops: list[str]) -> dict[str, str]:
    """Folder of each split."""
    splits: dict[str, str] = {}
    for top in tops:
        split = canonical_split(top)
        if split in splits:
            raise PartitaError(f"{folder}: both {splits[split]!r} and {top!r} are the split {split}; keep one of them")
        if split is not None:
            splits[split] = top
    return splits


def _similar(name: str) -> str | None:
    """The split that one word of a name stands for; None if it is ambiguous, "" if there is no such word."""
    words = _words(name)
    if any(word in _AMBIGUOUS for word in words):
        return None
    kinds = {_SYNONYMS[word] for word in words if word in _SYNONYMS}
    return kinds.pop() if len(kinds) == 1 else None if kinds else ""


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-._0-9]+", name.casefold()) if word]


def _tops(files: Iterable[str]) -> list[str]:
    return sorted({name.split("/")[0] for name in files if "/" in name})


def _ordered(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    return {split: splits[split] for split in SPLITS if split in splits}
