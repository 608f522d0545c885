"""Encoding a data set of audio to a corpus of latents, in shards: resumable, by any number of processes.

The rows of a shard, and which files are encoded together, depend on the files only, and each shard is written
atomically. Every process would therefore encode the same shard, an existing shard is complete, and what a killed
process leaves to do are the missing shards. A shard whose end cannot be read counts as missing.

A shard records digests of its files, which must be unchanged when encoding is resumed, and the rows that were left out;
it is encoded again if one of these can be encoded now.
"""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from partita_core import ChannelLayout, Codec, PartitaError, atomic_write, file_lock

from partita.data.datasets import open_splits, row_source
from partita.data.file_digests import row_digest
from partita.data.file_encoding import encode_files
from partita.distributed import check_world

from .plan import all_shards, begin_corpus, shard_rows
from .progress import EncodingProgress
from .record import CorpusRecord, shard_path
from .shard_metadata import SHARD_KEY, discard_corpus, read_shard_metadata, shards_to_make, sources_of
from .spec import COLUMNS, CONTENT, CORPUS, CorpusSpec

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset, Features

# Processes wait for the slowest one, which may take long.
_TIMEOUT = timedelta(days=30)


@dataclass(frozen=True)
class EncodedCorpus:
    """Summary of a corpus, over all invocations.

    Attributes:
        files: number of files of the source.
        encoded: number of files encoded, one row each.
        seconds: seconds of audio in them.
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
    where: str = "",
    progress: bool = True,
) -> EncodedCorpus:
    """Encode every split of a data set to a folder that `datasets` loads; format: `partita.data.corpus.spec`.

    Under torchrun or accelerate, every process encodes a share of the shards. Called again after it was stopped in any
    way, it continues with the missing shards. A file that cannot be encoded is left out, and tried again by the next
    call.

    Args:
        codec: the model, in eval mode; it is moved to the device of the process.
        source: data set, as `open_dataset` takes it.
        output: folder to create or to continue.
        layout: channel layout of all files; None for that of each file's channels.
        num_quantizers: levels of codes; None for all.
        dtype: type in which values are stored.
        only: the one to store of a model that produces both; None for both.
        shard_bytes: maximum bytes per shard, which holds at least one file; None for 1/64 of the split, within 1 to 64
            MiB.
        where: conditions `COLUMN=VALUE`, joined by commas, that the encoded rows meet; "" for all rows.
        progress: show a progress bar.

    Returns:
        Summary of the finished corpus; the same in every process.

    Raises:
        PartitaError: the output holds something else, the source has changed since the corpus was started, another
            command writes the corpus, processes are not connected, or no file can be encoded; then a newly created
            folder is removed.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list, parse_flag_from_env

    output = Path(output)
    # accelerate's Accelerator reads this flag, its PartialState does not.
    processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_TIMEOUT)
    check_world(processes.num_processes)
    progress, fresh = progress and processes.is_main_process, not output.exists()
    datasets = {split: _audio_only(rows, source) for split, rows in open_splits(source, where=where).items()}
    codec.to(processes.device)
    with ExitStack() as held:
        shared: list[Any] = [None, None, ""]
        if processes.is_main_process:
            name = None if layout is None else ChannelLayout.parse(layout).name.lower()
            try:
                spec = _corpus_spec(codec, num_quantizers, dtype, only)
                wanted = CorpusRecord(spec, name, num_quantizers, {}, _precision(codec))
                record = begin_corpus(output, wanted, datasets, source, shard_bytes=shard_bytes, progress=progress)
                held.enter_context(file_lock(output / CORPUS))
                shared[:2] = record, shards_to_make(codec, datasets, record, output)
            except PartitaError as error:
                shared[2] = str(error)
        # The main process decides for all: a fast process may have finished a shard before a slow one checks.
        broadcast_object_list(shared)
        record, left, problem = shared
        if problem:
            raise PartitaError(problem)
        features = _features(list(datasets.values()), record.corpus)
        own = left[processes.process_index :: processes.num_processes]
        with EncodingProgress(output, record, left, own, shown=progress) as bar:
            for shard in own:
                bar.count_others()
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
    """Torch's name of the narrowest floating-point type of the weights; empty if there are none."""
    found = [weights.dtype for weights in codec.parameters() if weights.is_floating_point()]
    return str(min(found, key=lambda dtype: dtype.itemsize)).removeprefix("torch.") if found else ""


def _audio_only(dataset: "Dataset", source: str | os.PathLike) -> "Dataset":
    if "audio" not in dataset.column_names:
        raise PartitaError(f"{source}: holds latents, not audio; there is nothing to encode")
    for name in sorted(set(COLUMNS) & set(dataset.column_names)):
        raise PartitaError(f"{source}: has a column {name!r}, a name reserved for corpora; rename the column")
    return dataset


def _corpus_spec(codec: Codec, num_quantizers: int | None, dtype: Any, only: str | None) -> CorpusSpec:
    """The spec of the rows; one frame of silence shows what the codec produces."""
    layout = codec.audio_spec.layouts[0]
    silence = torch.zeros(1, layout.width, codec.latent_spec.hop)
    made = codec.encode(silence, layout=layout, num_quantizers=num_quantizers)
    found = {"latents": made.values is not None, "codes": made.codes is not None}
    if only is not None and not found[only]:
        raise PartitaError(f"{type(codec).__name__} does not produce {only}; choose another value for only")
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
    """The columns of every shard: those of any split, and those that a corpus adds."""
    from datasets import Features, Value

    unknown = Value("null")  # type of an entirely empty column
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
    codec: Codec, dataset: "Dataset", record: CorpusRecord, features: "Features", bar: EncodingProgress
) -> "pyarrow.Table":
    """The rows of a shard, in the order of the source, with its metadata."""
    import pyarrow as pa

    paths = sources_of(dataset)
    contents = [row_digest(paths[i], i) for i in range(len(paths))]
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
    metadata = {"samples": samples, "broken": [broken[row] for row in sorted(broken)]}
    metadata |= {"left": sorted(broken), "contents": contents, "threads": torch.get_num_threads()}
    schema = schema.with_metadata({**(schema.metadata or {}), SHARD_KEY: json.dumps(metadata).encode()})
    return pa.Table.from_arrays(columns, schema=schema)


def _write(table: "pyarrow.Table", path: Path) -> None:
    import pyarrow.parquet as pq

    repeated: Any = [name for name in table.column_names if name not in CONTENT]
    pq.write_table(table, path, use_dictionary=repeated)


def _summary(output: Path, record: CorpusRecord) -> EncodedCorpus:
    """The summary of a corpus, from the metadata of its shards."""
    found = []
    for shard in all_shards(record):
        metadata = read_shard_metadata(shard_path(output, *shard))
        if metadata is None:
            raise PartitaError(f"{shard_path(output, *shard)}: was damaged after it was written; run the command again")
        found.append(metadata)
    files = sum(plan.ends[-1] for plan in record.splits.values())
    seconds = sum(metadata.samples for metadata in found) / record.corpus.latent.sample_rate
    broken = tuple(reason for metadata in found for reason in metadata.broken)
    return EncodedCorpus(files, sum(metadata.rows for metadata in found), seconds, broken)
