"""Streams of Parquet shards: division among processes, order, resuming, and damaged shards."""

import os
from collections import Counter
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
import soundfile
import torch
from partita.data import DataConfig, build_loader, corpus_spec, encode_corpus, first_rows, open_dataset
from partita.model_loading import load_codec
from partita.training import train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita_core import AudioSpec, ChannelLayout, PartitaError, override, read_json

SPEC = AudioSpec(8000, 2, tuple(ChannelLayout))
STREAM = DataConfig(
    augmentation=None, silence_db=None, num_workers=0, batch_size=4, crop_seconds=0.1, streaming=True, shuffle_buffer=3
)

# Rows of each shard.
ROWS = (7, 4, 1, 5, 8, 2)


def held(name: str, i: int) -> dict:
    """A file as bytes in a row, whose samples identify it."""
    data = BytesIO()
    audio = torch.full((1200, 2), 0.01 * (i + 1)).numpy()
    soundfile.write(data, audio, 8000, format="WAV", subtype="FLOAT")
    return {"path": name, "bytes": data.getvalue()}


def write_shards(folder: Path, rows=ROWS) -> Path:
    import datasets

    folder.mkdir(parents=True)
    number = 0
    for shard, count in enumerate(rows):
        names = [f"{number + i}.wav" for i in range(count)]
        audio = [held(name, number + i) for i, name in enumerate(names)]
        table = datasets.Dataset.from_dict({"audio": audio, "file_name": names, "label": [f"x{n}" for n in names]})
        table.to_parquet(folder / f"train-{shard:05d}-of-{len(rows):05d}.parquet")
        number += count
    return folder


@pytest.fixture(scope="module", autouse=True)
def quiet():
    import datasets

    datasets.disable_progress_bars()


@pytest.fixture
def shards(tmp_path) -> Path:
    return write_shards(tmp_path / "set")


def loader(folder, config=STREAM, **settings):
    dataset = open_dataset(folder, streaming=True)
    return build_loader(dataset, config, audio_spec=SPEC, crop_multiple=10, seed=3, **settings)


def names(batches) -> list[str]:
    return [name for batch in batches for name in batch["file_name"]]


def test_stream_row_becomes_requested_crop(shards):
    batch = next(iter(loader(shards)))
    assert batch["audio"].shape == (4, 2, 800) and batch["audio_lengths"].tolist() == [800] * 4
    for name, audio in zip(batch["file_name"], batch["audio"]):
        torch.testing.assert_close(audio, torch.full((2, 800), 0.01 * (int(name[:-4]) + 1)))
    assert batch["broken"] == [] and "position" not in batch


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_yields_each_file_once_per_epoch(shards, workers):
    total, share = sum(ROWS), 1
    config = replace(STREAM, batch_size=share, num_workers=workers)
    found = names(islice(loader(shards, config), 2 * total))
    if workers == 0:  # two streams end their epochs independently
        assert Counter(found[:total]) == Counter(found[total:]) == Counter(f"{i}.wav" for i in range(total))
        assert found[:total] != found[total:]
    assert sorted(Counter(found)) == sorted(f"{i}.wav" for i in range(total))


def test_stream_shuffles_rows_in_blocks_and_shards(shards):
    found = [int(name[:-4]) for name in names(islice(loader(shards, replace(STREAM, batch_size=1)), sum(ROWS)))]
    assert found != sorted(found)
    starts = [sum(ROWS[:i]) for i in range(len(ROWS))]
    order = [max(i for i, start in enumerate(starts) if start <= number) for number in found]
    assert [shard for i, shard in enumerate(order) if i == 0 or order[i - 1] != shard] != sorted(set(order))
    assert len([1 for a, b in zip(order, order[1:]) if a != b]) == len(ROWS) - 1  # one shard after another
    of_5 = [number - starts[4] for number, shard in zip(found, order) if shard == 4]
    assert [sorted(of_5[:3]), sorted(of_5[3:6]), sorted(of_5[6:])] == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_shards_without_overlap(shards, workers):
    config = replace(STREAM, num_workers=workers, batch_size=3)
    found = [set(names(islice(loader(shards, config, rank=rank, world_size=3), 40))) for rank in range(3)]
    assert set.union(*found) == {f"{i}.wav" for i in range(sum(ROWS))}
    assert sum(map(len, found)) == sum(ROWS)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("after", [0, 1, 4, 7, 15])
def test_stream_resumes_from_positions(shards, workers, after):
    config = replace(STREAM, num_workers=workers)
    whole = loader(shards, config)
    batches = iter(whole)
    for _ in range(after):
        next(batches)
    positions = whole.positions
    expected = list(islice(batches, 9))
    resumed = list(islice(loader(shards, config, positions=positions), 9))
    assert names(expected) == names(resumed)
    assert all(torch.equal(a["audio"], b["audio"]) for a, b in zip(expected, resumed))


def test_shard_is_opened_once_per_epoch(shards, monkeypatch):
    """Each shard is read exactly once in an epoch."""
    from partita.data import streaming as streams

    read = []
    original = streams.CropStream._rows

    def rows(self, epoch, shard, first):
        read.append((epoch, shard))
        yield from original(self, epoch, shard, first)

    monkeypatch.setattr(streams.CropStream, "_rows", rows)
    list(islice(loader(shards, replace(STREAM, batch_size=1)), 2 * sum(ROWS) + 1))
    assert len(set(read)) == len(read)
    assert {key for key in read if key[0] < 2} == {(epoch, shard) for epoch in (0, 1) for shard in range(len(ROWS))}


def test_broken_rows_and_shards_are_skipped_and_reported(tmp_path):
    import datasets

    folder = write_shards(tmp_path / "set", (3, 3, 3))
    rows = [held("10.wav", 10), {"path": "bad.wav", "bytes": b"no audio"}, held("11.wav", 11)]
    columns = {"audio": rows, "file_name": [row["path"] for row in rows], "label": ["x"] * 3}
    table = datasets.Dataset.from_dict(columns)
    table.to_parquet(folder / "train-00001-of-00003.parquet")
    dataset = open_dataset(folder, streaming=True)
    damaged = folder / "train-00002-of-00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    read = build_loader(dataset, replace(STREAM, batch_size=1), audio_spec=SPEC, crop_multiple=10, seed=3)
    batches = list(islice(read, 10))
    assert set(names(batches)) == {"0.wav", "1.wav", "2.wav", "10.wav", "11.wav"}
    said = {found.file: found for batch in batches for found in batch["broken"]}
    assert said.keys() == {"bad.wav", str(damaged)}
    assert said["bad.wav"].startswith("bad.wav: is not audio")
    assert said[str(damaged)].startswith(f"{damaged}: is damaged")
    for name in ("train-00000-of-00003.parquet", "train-00001-of-00003.parquet"):
        (folder / name).write_bytes(b"PAR1")
    with pytest.raises(PartitaError, match="3 files in a row cannot be read; the first: .*parquet: is damaged"):
        next(iter(read))


@pytest.mark.parametrize("workers, processes", [(0, 2), (2, 1)])
def test_stream_of_damaged_shards_reads_other_shards(tmp_path, workers, processes):
    folder = write_shards(tmp_path / "set", (3, 3, 4, 3))
    dataset = open_dataset(folder, streaming=True)
    for shard in (1, 3):  # all of the second stream
        (folder / f"train-{shard:05d}-of-00004.parquet").write_bytes(b"PAR1")
    config = replace(STREAM, batch_size=processes, num_workers=workers)
    settings = {"audio_spec": SPEC, "crop_multiple": 10, "seed": 3, "world_size": processes, "rank": processes - 1}
    reader = build_loader(dataset, config, **settings)
    batches, positions = [], []
    for batch in islice(reader, 21):
        batches.append(batch)
        positions.append(reader.positions)
    good = {f"{i}.wav" for i in (0, 1, 2, 6, 7, 8, 9)}
    assert set(names(batches)) == good
    if workers == 0:  # each file once per epoch, and both damaged shards are reported in each
        assert all(set(names(batches[at : at + 7])) == good for at in (0, 7, 14))
        assert [len(batch["broken"]) for batch in batches] == [2, *[0] * 6] * 3
    for after in (2, 5, 7, 9):
        resumed = build_loader(dataset, config, positions=positions[after - 1], **settings)
        assert names(islice(resumed, 9)) == names(batches[after : after + 9])


def test_stream_of_one_shard_continues_after_its_last_row(tmp_path):
    folder = write_shards(tmp_path / "set", (4,))
    reader = loader(folder)
    assert sorted(names([next(iter(reader))])) == [f"{i}.wav" for i in range(4)]
    assert len(names(islice(loader(folder, positions=reader.positions), 1))) == 4


def test_invalid_streams_raise(shards, tones):
    with pytest.raises(PartitaError, match="folder of audio .*data.streaming=false"):
        open_dataset(tones, streaming=True)
    with pytest.raises(PartitaError, match="6 shards, and 7 processes"):
        loader(shards, replace(STREAM, batch_size=7), world_size=7)
    with pytest.raises(PartitaError, match=r"\[1\] in this process, not \[0\]"):
        loader(shards, positions=[(1, 0, 0, 0)])
    with pytest.raises(PartitaError, match="shuffle_buffer is 0; it must be at least 1"):
        DataConfig(shuffle_buffer=0)


def test_first_rows_come_from_all_shards(shards):
    dataset = open_dataset(shards, streaming=True)
    found = first_rows(dataset)
    assert len(found) == 15 and {"0.wav", "7.wav", "11.wav", "12.wav", "25.wav"} <= set(found["file_name"])
    assert found[0]["audio"]["bytes"] and first_rows(found) is found


def test_corpus_streams(run, tones, tmp_path):
    encode_corpus(load_codec(run / "model"), tones, tmp_path / "corpus", progress=False)
    dataset = open_dataset(tmp_path / "corpus", streaming=True)
    assert corpus_spec(dataset) == corpus_spec(open_dataset(tmp_path / "corpus"))
    assert corpus_spec(first_rows(dataset)) == corpus_spec(dataset)
    codec = load_codec(run / "model")
    settings = {"audio_spec": codec.audio_spec, "crop_multiple": codec.latent_spec.hop, "seed": 0}
    batch = next(iter(build_loader(dataset, STREAM, **settings)))
    assert batch["latents"].shape[:2] == (4, codec.latent_spec.dim) and len(set(batch["file_name"])) == 4


def lines(run: Path) -> list[dict]:
    times = ("seconds", "cpu_seconds", "waited")
    return [{k: v for k, v in line.items() if k not in times} for line in read_log(run / "log.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_training_on_stream_resumes_exactly(config, shards, tmp_path, workers):
    run = override(
        config(steps=12),
        ["data.streaming=true", "data.shuffle_buffer=3", f"data.num_workers={workers}", "data.crop_seconds=0.1"],
    )
    settings = {"data": shards, "progress": False, "checkpoint_every": 5, "keep": 9}
    train(run, output=tmp_path / "whole", **settings)
    train(run, output=tmp_path / "cut", **settings)
    for checkpoint in checkpoints(tmp_path / "cut" / "checkpoints")[1:]:
        os.rename(checkpoint, tmp_path / checkpoint.name)
    train(run, output=tmp_path / "cut", resume=True, **settings)
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")
    ends = [checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "cut")]
    assert len(read_json(ends[0] / "state.json")["metadata"]["positions"][0]) == max(1, workers)
    one, other = ((end / "objective.safetensors").read_bytes() for end in ends)
    assert one == other


@pytest.mark.slow
def test_two_processes_read_each_stream_row_once(python, shards, tmp_path):
    script = tmp_path / "two.py"
    script.write_text("""
import gc
import sys
from accelerate import Accelerator
from conftest import tiny_config
from partita.objectives import Objective
from partita.training import train
from partita_core import override

data, output = sys.argv[1:]
seen, original = [], Objective.__call__
def call(self, batch, *rest):
    if self.training:
        seen.extend(batch["file_name"])
    return original(self, batch, *rest)
Objective.__call__ = call
end_training = Accelerator.end_training
def end(self):
    # One that outlives the process group can hang the process when it is freed.
    wrappers = [one for one in gc.get_objects() if type(one).__name__ == "DistributedDataParallel"]
    assert not wrappers, wrappers
    end_training(self)
Accelerator.end_training = end
changes = ["streaming=true", "shuffle_buffer=3", "crop_seconds=0.1", "batch_size=2", "silence_db=null"]
run = override(tiny_config(steps=16), [f"data.{change}" for change in changes])
train(run, data=data, output=output, progress=False)
sys.stdout.write(f"read: {' '.join(seen)}\\n")
""")
    done = python(script, shards, tmp_path / "run", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (line.split()[1:] for line in done.stdout.splitlines() if line.startswith("read: "))
    assert len(one) == len(other) == 16 and not set(one) & set(other)
    assert len(set(one) | set(other)) == sum(ROWS)
    positions = read_json(tmp_path / "run" / "checkpoints" / "step_00000016" / "state.json")["metadata"]["positions"]
    assert [place[0][0] for place in positions] == [0, 1]
