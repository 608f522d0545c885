"""Encoding a corpus: a data set of audio to one of latents, in shards, by any number of processes, in as many goes.

Which rows make a shard, and which files are encoded together, depends on the files alone; each shard is written whole.
So whoever makes a shard makes the same, a shard that is there is complete, and what a killed process leaves to do is
the shards that are not there. One that was damaged since, so that its end cannot be read, is none.

A shard records digests of its files, which must still be the same when the corpus is gone on with, and the rows that
were left out; a shard of which one can be encoded now is made again.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from partita_core import ChannelLayout, Codec, PartitaError, atomic_write, file_lock
from tqdm import tqdm

from partita.data.contents import row_contents
from partita.data.datasets import dataset_splits, open_dataset, row_source
from partita.data.encode_files import encode_files
from partita.distributed import check_world

from .plan import Shard, all_shards, begin_corpus, shard_rows
from .read import COLUMNS, CONTENT, CORPUS, CorpusRecord, CorpusSpec, shard_path
from .shard_metadata import NOTE, discard_corpus, read_note, shards_to_make, sources_of

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, Features

# Processes wait for the slowest, however long that takes.
_TIMEOUT = timedelta(days=30)


@dataclass(frozen=True)
class EncodedCorpus:
    """What a corpus holds, of all goes together.

    Attributes:
        files: of the source.
        encoded: rows.
        seconds: of audio in them.
        broken: "name: reason" of each file that was left out.
    """

    files: int
    encoded: int
    seconds: float
    broken: tuple[str, ...]


def encode_corpus(
    codec: Codec,
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    layout: ChannelLayout | str | None = None,
    num_quantizers: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    only: Literal["latents", "codes"] | None = None,
    shard_bytes: int | None = None,
    progress: bool = True,
) -> EncodedCorpus:
    """Encode every split of a data set to a folder that `datasets` loads; format: `partita.data.corpus.read`.

    Started by torchrun or accelerate, every process encodes a share of the shards. Started again after it was stopped,
    however that was, it goes on with the shards that are not there. A file that cannot be encoded is left out, and the
    next start tries it again.

    Args:
        codec: the model, in eval mode; it is moved to the process's device.
        source: a data set as `open_dataset` takes it.
        output: the folder to make or to go on with.
        layout: of all files; None for the one that the channels of each have.
        num_quantizers: levels of codes; None for all.
        dtype: that values are stored in.
        only: what to keep where the model makes both; None for both.
        shard_bytes: the most that a shard holds, of one file at least; None for a 64th of the split, from 1 to 64 MiB.
        progress: show a bar.

    Returns:
        What the corpus holds in the end; the same in every process.

    Raises:
        PartitaError: the output holds something else, the source is not what it was begun on, another command writes
            the corpus, processes do not know of each other, or no file can be encoded; then a folder that was begun now
            is removed.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list, parse_flag_from_env

    output = Path(output)
    # The flag is one that accelerate's Accelerator looks at, and its PartialState does not.
    processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_TIMEOUT)
    check_world(processes.num_processes)
    progress, fresh = progress and processes.is_main_process, not output.exists()
    datasets = {split: _audio_only(open_dataset(source, split), source) for split in dataset_splits(source)}
    codec.to(processes.device)
    with ExitStack() as held:
        told: list[Any] = [None, None, ""]
        if processes.is_main_process:
            name = None if layout is None else ChannelLayout.parse(layout).name.lower()
            try:
                spec = _corpus_spec(codec, num_quantizers, dtype, only)
                wanted = CorpusRecord(spec, name, num_quantizers, {}, _precision(codec))
                record = begin_corpus(output, wanted, datasets, source, shard_bytes=shard_bytes, progress=progress)
                held.enter_context(file_lock(output / CORPUS))
                told[:2] = record, shards_to_make(codec, datasets, record, output)
            except PartitaError as error:
                told[2] = str(error)
        # One word for all: the first to look may have finished a shard before the last one looks.
        broadcast_object_list(told)
        record, left, problem = told
        if problem:
            raise PartitaError(problem)
        features = _features(list(datasets.values()), record.corpus)
        mine = left[processes.process_index :: processes.num_processes]
        with _Bar(output, record, left, mine, shown=progress).open() as bar:
            for shard in mine:
                bar.look_around()
                rows = datasets[shard[0]].select(shard_rows(record, shard))
                table = _encode_shard(codec, rows, record, features, bar)
                with atomic_write(shard_path(output, *shard)) as aside:
                    _write(table, aside)
        processes.wait_for_everyone()
        done = _summary(output, record)
        processes.wait_for_everyone()
        if not done.encoded:
            if fresh and processes.is_main_process:
                discard_corpus(output, record)
            raise PartitaError(f"none of {done.files} files could be encoded; the first: {done.broken[0]}")
        return done


def _precision(codec: Codec) -> str:
    """The narrowest floating type of the weights, as torch calls it; empty where there are none."""
    found = [weights.dtype for weights in codec.parameters() if weights.is_floating_point()]
    return str(min(found, key=lambda dtype: dtype.itemsize)).removeprefix("torch.") if found else ""


def _audio_only(dataset: "Dataset", source: str | os.PathLike) -> "Dataset":
    if "audio" not in dataset.column_names:
        raise PartitaError(f"{source}: holds latents already; there is no audio to encode")
    for name in sorted(set(COLUMNS) & set(dataset.column_names)):
        raise PartitaError(f"{source}: has a column {name!r}, which a corpus has for its own; give it another name")
    return dataset


def _corpus_spec(codec: Codec, num_quantizers: int | None, dtype: Any, only: str | None) -> CorpusSpec:
    """What rows will mean; what the codec makes is seen by a frame of silence."""
    layout = codec.audio_spec.layouts[0]
    silence = torch.zeros(1, layout.width, codec.latent_spec.hop)
    made = codec.encode(silence, layout=layout, num_quantizers=num_quantizers)
    found = {"latents": made.values is not None, "codes": made.codes is not None}
    if only is not None and not found[only]:
        raise PartitaError(f"{type(codec).__name__} makes no {only}, so there are none to keep")
    kept = {name for name in found if found[name] and only in (None, name)}
    narrow = max(codec.latent_spec.codebook_sizes, default=0) <= 2**15
    return CorpusSpec(
        latent=codec.latent_spec,
        space_id=codec.space_id,
        codes_id=codec.codes_id if "codes" in kept else None,
        dtype=dtype if "latents" in kept else None,
        codes_dtype=("int16" if narrow else "int32") if "codes" in kept else None,
        gain=made.gain is not None,
    )


def _features(datasets: Sequence["Dataset"], spec: CorpusSpec) -> "Features":
    """The columns of every shard: those of any split, and what a corpus adds."""
    from datasets import Features, Value

    unknown = Value("null")  # of a column that is empty throughout
    found: dict[str, Any] = {}
    for dataset in datasets:
        for name, feature in dataset.features.items():
            if name != "audio" and found.get(name, unknown) == unknown:
                found[name] = feature
    found = {name: Value("string") if feature == unknown else feature for name, feature in found.items()}
    kept = {"latents": spec.dtype, "codes": spec.codes_dtype, "gain": spec.gain}
    added = {name: Value("binary" if name in CONTENT else "int64") for name in COLUMNS if kept.get(name, True)}
    return Features(found | added)


def _encode_shard(
    codec: Codec, dataset: "Dataset", record: CorpusRecord, features: "Features", bar: "_Bar"
) -> "pyarrow.Table":
    """The rows of a shard, in the order of the source, with a note of what was left out."""
    import pyarrow as pa

    paths = sources_of(dataset)
    contents = [row_contents(paths[i], i) for i in range(len(paths))]
    rows: dict[int, dict[str, Any]] = {}
    broken: dict[int, str] = {}
    settings = {"layout": record.layout, "num_quantizers": record.num_quantizers}
    for row, result in encode_files(codec, lambda i: row_source(paths[i], i), len(dataset), **settings):
        try:
            if isinstance(result, PartitaError):
                raise result
            rows[row] = record.corpus.pack(result, paths[row]["file_name"])
        except PartitaError as error:
            broken[row] = str(error)
        seconds = rows[row]["audio_length"] / record.corpus.latent.sample_rate if row in rows else 0.0
        bar.advance(seconds)
    kept = sorted(rows)
    source: Any = dataset.remove_columns(["audio"]).with_format("arrow")[:]
    source = source.take(pa.array(kept, pa.int64()))
    schema = features.arrow_schema
    columns = []
    for field in schema:
        if field.name in COLUMNS:
            columns.append(pa.array([rows[row][field.name] for row in kept], field.type))
        elif field.name in source.column_names:
            columns.append(source[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(kept), field.type))
    samples = sum(rows[row]["audio_length"] for row in kept)
    note = {"samples": samples, "broken": [broken[row] for row in sorted(broken)]}
    note |= {"left": sorted(broken), "contents": contents, "threads": torch.get_num_threads()}
    schema = schema.with_metadata({**(schema.metadata or {}), NOTE: json.dumps(note).encode()})
    return pa.Table.from_arrays(columns, schema=schema)


def _write(table: "pyarrow.Table", path: Path) -> None:
    import pyarrow.parquet as pq

    repeated: Any = [name for name in table.column_names if name not in CONTENT]
    pq.write_table(table, path, use_dictionary=repeated)


def _summary(output: Path, record: CorpusRecord) -> EncodedCorpus:
    """What the shards say of themselves."""
    notes = []
    for shard in all_shards(record):
        note = read_note(shard_path(output, *shard))
        if note is None:
            raise PartitaError(f"{shard_path(output, *shard)}: was damaged meanwhile; give the command once more")
        notes.append(note)
    files = sum(plan.ends[-1] for plan in record.splits.values())
    seconds = sum(note.samples for note in notes) / record.corpus.latent.sample_rate
    broken = tuple(reason for note in notes for reason in note.broken)
    return EncodedCorpus(files, sum(note.rows for note in notes), seconds, broken)


class _Bar:
    """Files, files a second, times real time and the time left, of all processes together."""

    def __init__(
        self, output: Path, record: CorpusRecord, left: Sequence[Shard], mine: Sequence[Shard], *, shown: bool
    ) -> None:
        self._output, self._record = output, record
        self._others = set(left) - set(mine)
        self._files, self._seconds = 0, 0.0
        self._goal = sum(len(shard_rows(record, shard)) for shard in left)
        seconds = sum(record.splits[split].seconds[number] for split, number in left)
        whole = sum(sum(plan.seconds) for plan in record.splits.values()) or 1.0  # where no header can be read
        self._before, self._start = whole - seconds, time.monotonic()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(total=whole, initial=self._before, desc="encoding", bar_format=form, disable=not shown)

    def look_around(self) -> None:
        """Counts what the other processes have finished."""
        done = {shard for shard in self._others if shard_path(self._output, *shard).is_file()}
        self._others -= done
        self._files += sum(len(shard_rows(self._record, shard)) for shard in done)
        self._seconds += sum(self._record.splits[split].seconds[number] for split, number in done)

    def advance(self, seconds: float) -> None:
        """A file is done."""
        self._files += 1
        self._seconds += seconds
        passed = max(time.monotonic() - self._start, 1e-9)
        speed = f"{self._files / passed:.1f} files/s, {self._seconds / passed:.0f} x real time"
        self._bar.set_postfix_str(f"{self._files}/{self._goal} files, {speed}", refresh=False)
        done = min(self._before + self._seconds, self._bar.total)  # headers need not be exact
        self._bar.update(done - self._bar.n)

    @contextmanager
    def open(self) -> "Iterator[_Bar]":
        """Within it, the line goes on."""
        try:
            yield self
        finally:
            self._bar.close()
