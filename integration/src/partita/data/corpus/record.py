"""The `corpus.json` of a corpus of latents: its spec, settings, and division into shards."""

from dataclasses import dataclass
from pathlib import Path

from partita_core import PartitaError, from_dict, read_json, short_repr

from .spec import CORPUS, CorpusSpec


@dataclass(frozen=True)
class SplitPlan:
    """Division of a split into shards, which depends on its files only.

    Attributes:
        names: hash of the file names, in their order.
        ends: for each shard, the row of the source after its last; it begins where the previous one ends.
        seconds: seconds of audio in each shard.
    """

    names: str
    ends: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class CorpusRecord:
    """Contents of `corpus.json`.

    Attributes:
        corpus: meaning of the rows.
        layout: channel layout in which all files were encoded; None for each file's own.
        num_quantizers: requested levels of codes; None for all.
        splits: plan of each split, by name.
        precision: torch's name of the type of the encoding weights; empty if not recorded.
    """

    corpus: CorpusSpec
    layout: str | None
    num_quantizers: int | None
    splits: dict[str, SplitPlan]
    precision: str = ""


def read_record(folder: Path) -> CorpusRecord:
    """Read the `corpus.json` of a folder.

    Raises:
        PartitaError: there is none, or it does not describe a corpus.
    """
    path = folder / CORPUS
    record = from_dict(CorpusRecord, read_json(path), where=str(path))
    for split, plan in record.splits.items():
        ends = (0, *plan.ends)
        if not plan.ends or len(plan.ends) != len(plan.seconds) or any(b <= a for a, b in zip(ends, ends[1:])):
            raise PartitaError(f"{path}: the ends and seconds of {short_repr(split)} are inconsistent")
        if split in ("", ".", "..") or not set("/\\\0").isdisjoint(split):
            raise PartitaError(
                f"{path}: {short_repr(split)} is not the name of a split, which is a folder next to this file"
            )
    return record


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Path of a shard."""
    return folder / split / f"latents-{number:05d}.parquet"
