"""Planning a corpus of latents: assignment of source rows to shards, which depends on the files only."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from partita_core import PartitaError, atomic_write, check_vacant, remove_unfinished, to_dict, write_json
from tqdm import tqdm

from partita.data.audio.files import audio_info
from partita.data.audio.resampling import resampled_length
from partita.data.datasets import names_hash, row_source

from .record import CorpusRecord, SplitPlan, read_record
from .spec import CORPUS, CorpusSpec

if TYPE_CHECKING:
    from datasets import Dataset

Shard = tuple[str, int]
"""Name of a split, and number of one of its shards."""

# A split is divided into about this many shards, as far as the limits of their bytes allow.
_SHARDS = 64
_MIN_BYTES, _MAX_BYTES = 1 << 20, 64 << 20

# Headers read at a time, and number of reading threads.
_HEADERS, _THREADS = 1024, 8


def begin_corpus(
    output: Path,
    wanted: CorpusRecord,
    datasets: Mapping[str, "Dataset"],
    source: str | os.PathLike,
    *,
    shard_bytes: int | None,
    progress: bool,
) -> CorpusRecord:
    """Plan and write a corpus without shards, or open the one to resume.

    Args:
        output: folder of the corpus.
        wanted: record to write, without its splits.
        datasets: source data set of each split.
        source: name of the source.
        shard_bytes: maximum bytes per shard, which holds at least one file; None for 1/64 of the split, within 1 to 64
            MiB.
        progress: show a bar while headers are read.

    Returns:
        The record in its `corpus.json`.

    Raises:
        PartitaError: the folder holds something else, or a corpus with other settings or files.
    """
    if (output / CORPUS).is_file():
        found = read_record(output)
        _check_same(output, found, wanted, datasets, source)
        for split in found.splits:
            remove_unfinished(output / split)
        return found
    check_vacant(output)
    splits = {
        split: _plan(dataset, wanted.corpus, shard_bytes, f"looking at {split}" if progress else None)
        for split, dataset in datasets.items()
    }
    record = replace(wanted, splits=splits)
    with atomic_write(output) as aside:
        for split in splits:
            (aside / split).mkdir(parents=True)
        (aside / "README.md").write_text(_card(record, Path(source).name), encoding="utf-8")
        write_json(aside / CORPUS, to_dict(record))
    return record


def all_shards(record: CorpusRecord) -> list[Shard]:
    """All shards of a corpus, split by split."""
    return [(split, number) for split, plan in record.splits.items() for number in range(len(plan.ends))]


def shard_rows(record: CorpusRecord, shard: Shard) -> range:
    """Rows of the source in a shard."""
    split, number = shard
    ends = (0, *record.splits[split].ends)
    return range(ends[number], ends[number + 1])


def _check_same(
    output: Path,
    found: CorpusRecord,
    wanted: CorpusRecord,
    datasets: Mapping[str, "Dataset"],
    source: str | os.PathLike,
) -> None:
    """Check that a corpus to resume has the settings and files of the current call."""
    for name in ("space_id", "codes_id", "dtype", "codes_dtype", "layout", "num_quantizers", "precision"):
        was, now = (getattr(one.corpus if hasattr(one.corpus, name) else one, name) for one in (found, wanted))
        if was != now and was != "":  # empty where it was not recorded
            raise PartitaError(f"{output}: was started with {name} {was}, not {now}; choose another folder")
    files = {split: (names_hash(dataset), len(dataset)) for split, dataset in datasets.items()}
    if files != {split: (plan.names, plan.ends[-1]) for split, plan in found.splits.items()}:
        raise PartitaError(f"{output}: was started with other files than those of {source}; choose another folder")


def _plan(dataset: "Dataset", spec: CorpusSpec, shard_bytes: int | None, title: str | None) -> SplitPlan:
    """Divide a split by the sizes in the headers of its files; an unreadable file counts as empty."""
    paths = dataset.select_columns(["audio", "file_name"])

    def measure(row: int) -> tuple[int, float]:
        try:
            info = audio_info(row_source(paths[row], row))
        except PartitaError:
            return 0, 0.0
        samples = resampled_length(info.frames, info.sample_rate, spec.latent.sample_rate)
        return spec.latent.frames(samples) * spec.frame_bytes, info.duration

    sizes: list[tuple[int, float]] = []
    bar = tqdm(total=len(dataset), desc=title, unit="file", disable=title is None, leave=False)
    with bar, ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(dataset), _HEADERS):
            sizes += pool.map(measure, range(start, min(start + _HEADERS, len(dataset))))
            bar.update(len(sizes) - bar.n)
    limit = shard_bytes or min(max(sum(size for size, _ in sizes) // _SHARDS, _MIN_BYTES), _MAX_BYTES)
    ends, seconds, filled = [], [], limit + 1
    for row, (size, duration) in enumerate(sizes):
        if filled + size > limit:
            filled = 0
            ends.append(row)
            seconds.append(0.0)
        filled += size
        ends[-1] = row + 1
        seconds[-1] += duration
    return SplitPlan(names_hash(dataset), tuple(ends), tuple(seconds))


def _card(record: CorpusRecord, source: str) -> str:
    """Contents of the README.md by which the hub and `datasets` find the splits."""
    files = "\n".join(f"  - split: {split}\n    path: {split}/latents-*.parquet" for split in record.splits)
    spec = record.corpus.latent
    return f"""---
configs:
- config_name: default
  data_files:
{files}
---

# Latents of {source}

Latents of dimension {spec.dim}, {spec.tokens_per_frame} per frame, at {float(spec.frame_rate):g} frames per second, in
the space `{record.corpus.space_id}`, written by `partita encode` and described by `corpus.json`. In Python, a split is
`partita.data.open_dataset(FOLDER, split)`, and `stored_latents` iterates over latents that the codec decodes.
"""
