"""Splits of a data set by the names of its folders and files."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from partita_core import PartitaError

from partita.data.notes import counted, note

SPLITS = ("train", "validation", "test")

_SYNONYMS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Validation to some, test to others, and "development" holds training files in some sets.
_UNSURE = ("eval", "evaluation", "development", "holdout")

_REMEDY = "call the folders train, validation and test (links will do), or name one of them as the data"


class Division(NamedTuple):
    """How files are divided.

    Attributes:
        splits: split -> its files, in the usual order of splits; empty where all files are one.
        beside: files that are in no split.
    """

    splits: dict[str, list[str]]
    beside: list[str]


def split_called(name: str) -> str | None:
    """The split that a name means: train, validation or test, whatever its case; None for other names."""
    return _SYNONYMS.get(name.casefold())


def chosen_split(wanted: str, names: Sequence[str]) -> str | None:
    """The one of `names` that `wanted` means, by itself or as a synonym.

    Raises:
        PartitaError: several of them mean it.
    """
    if wanted in names:
        return wanted
    meant = split_called(wanted)
    found = [name for name in names if meant is not None and split_called(name) == meant]
    if len(found) > 1:
        raise PartitaError(f"the split {wanted!r} may be {' or '.join(map(repr, found))}; name one of these")
    return found[0] if found else None


def divide_folders(folder: Path, files: list[str]) -> Division:
    """Divide files by their top folders, or, of a folder of sets, by the folders below these.

    Args:
        folder: its name, for messages.
        files: relative paths with forward slashes, sorted.

    Raises:
        PartitaError: two folders are the same split, or folders are splits by names that are not known for sure.
    """
    found = _divide(folder, files)
    if found.beside:
        left = counted(found.beside, "audio file")
        note(f"{folder}: left out {left} beside the splits {', '.join(found.splits)}")
    return found


def divide_tables(folder: Path, files: list[str]) -> Division:
    """Divide tables by the words in the names of their folders and of themselves, as `train-00000-of-00002.parquet`.

    Raises:
        PartitaError: a name is that of several splits, or of none that is known for sure.
    """
    splits: dict[str, list[str]] = {}
    beside = []
    for file in files:
        words = {word for part in file.rsplit(".", 1)[0].split("/") for word in _words(part)}
        kinds = {_SYNONYMS[word] for word in words if word in _SYNONYMS}
        if len(kinds) > 1 or (not kinds and words & set(_UNSURE)):
            raise PartitaError(f"{folder}: {file!r} may be of several splits; name files train-, validation- or test-")
        if kinds:
            splits.setdefault(kinds.pop(), []).append(file)
        else:
            beside.append(file)
    if splits and beside:
        note(f"{folder}: left out {counted(beside, 'file')} in none of the splits {', '.join(splits)}")
    return Division(_ordered(splits), beside if splits else [])


def _divide(folder: Path, files: list[str]) -> Division:
    tops = _tops(files)
    splits = _exact(folder, tops)
    alike = {top: kind for top in tops if split_called(top) is None and (kind := _alike(top)) not in ("", "train")}
    doubtful = [top for top, kind in alike.items() if not ({kind} if kind else {"validation", "test"}) <= splits.keys()]
    if doubtful:
        known = f", beside {', '.join(splits)}" if splits else ""
        raise PartitaError(f"{folder}: {doubtful[0]!r} looks like a split{known}; {_REMEDY}")
    if splits:
        inside = {split: [name for name in files if name.startswith(f"{top}/")] for split, top in splits.items()}
        return Division(_ordered(inside), [name for name in files if name.split("/")[0] not in splits.values()])
    return _divide_sets(folder, files, tops)


def _divide_sets(folder: Path, files: list[str], tops: list[str]) -> Division:
    """The union of the splits of sub-folders, where these have any."""
    parts = {top: [name[len(top) + 1 :] for name in files if name.startswith(f"{top}/")] for top in tops}
    found = {top: _exact(folder / top, _tops(names)) for top, names in parts.items()}
    kinds = {split for splits in found.values() for split in splits}
    without = [top for top, splits in found.items() if not splits]
    if kinds and not without:
        divided = {top: _divide(folder / top, names) for top, names in parts.items()}
        inside: dict[str, list[str]] = {}
        beside = [name for name in files if "/" not in name]
        for top, part in divided.items():
            beside += [f"{top}/{name}" for name in part.beside]
            for split, names in part.splits.items():
                inside.setdefault(split, []).extend(f"{top}/{name}" for name in names)
        return Division(_ordered(inside), sorted(beside))
    if kinds - {"train"}:
        which = next(
            f"{top}/{name}" for top, splits in found.items() for split, name in splits.items() if split != "train"
        )
        why = f"{which!r} looks like a split, and {without[0]!r} has none"
        raise PartitaError(f"{folder}: {why}; give every folder its splits, name one of them, or rename {which!r}")
    _check_deep(folder, files)
    return Division({}, [])


def _check_deep(folder: Path, files: list[str]) -> None:
    """Refuse to take for one set what has splits further down: the test files would be trained on."""
    children: dict[str, set[str]] = {}
    for file in files:
        parts = file.split("/")[:-1]
        for depth in range(1, len(parts)):
            children.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for parent, names in sorted(children.items()):
        kinds = {split_called(name) or _alike(name) for name in names} - {""}
        if len(kinds) > 1:
            which = " and ".join(repr(name) for name in sorted(names) if split_called(name) or _alike(name))
            raise PartitaError(
                f"{folder}: {which} in {parent!r} look like splits; name {folder / parent}, or {_REMEDY}"
            )


def _exact(folder: Path, tops: list[str]) -> dict[str, str]:
    """Split -> its folder."""
    splits: dict[str, str] = {}
    for top in tops:
        split = split_called(top)
        if split in splits:
            raise PartitaError(f"{folder}: both {splits[split]!r} and {top!r} are the split {split}; leave one of them")
        if split is not None:
            splits[split] = top
    return splits


def _alike(name: str) -> str | None:
    """The split that one word of a name means; None where it is not known which, and "" where there is no such word."""
    words = _words(name)
    if any(word in _UNSURE for word in words):
        return None
    kinds = {_SYNONYMS[word] for word in words if word in _SYNONYMS}
    return kinds.pop() if len(kinds) == 1 else None if kinds else ""


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-._0-9]+", name.casefold()) if word]


def _tops(files: Iterable[str]) -> list[str]:
    return sorted({name.split("/")[0] for name in files if "/" in name})


def _ordered(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    return {split: splits[split] for split in SPLITS if split in splits}
