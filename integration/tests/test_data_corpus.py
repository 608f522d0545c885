"""Corpora of latents: encoding in shards, resuming after a kill, reading rows and crops."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from partita.data import (
    corpus_spec,
    dataset_splits,
    encode_corpus,
    open_dataset,
    stored_latents,
    whole_files,
    write_audio,
)
from partita.interop import from_huggingface
from partita_core import ChannelLayout, PartitaError

pytestmark = pytest.mark.usefixtures("datasets_cache")

SMALL = 6000  # bytes per shard


@pytest.fixture
def corpus(codec, sources, tmp_path) -> Iterator[Path]:
    """A corpus that is made by one thread, since rounding depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    encode_corpus(codec, sources, tmp_path / "corpus", shard_bytes=SMALL, progress=False)
    yield tmp_path / "corpus"
    torch.set_num_threads(threads)


def rows_of(folder: Path) -> dict[str, list[dict]]:
    return {split: list(open_dataset(folder, split)) for split in dataset_splits(folder)}


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/latents-*.parquet"))


# ------------------------------------------------------------------ contents


def test_corpus_rows_match_source_and_encode(codec, sources, corpus):
    for split, count in {"train": 10, "validation": 2}.items():
        dataset = open_dataset(corpus, split)
        clips = list(whole_files(open_dataset(sources, split), sample_rate=8000))
        assert dataset["file_name"] == [clip.name for clip in clips] and len(clips) == count
        for clip, row, latents in zip(clips, dataset, stored_latents(dataset)):
            expected = codec.encode(clip.audio[None])
            assert row["label"] == clip.row.get("label") and row.get("duration_s") == clip.row.get("duration_s")
            assert row["frames"] == int(expected.frames[0]) and latents.layouts() == [clip.layout]
            assert latents.audio_lengths.tolist() == [clip.audio.shape[-1]]
            assert latents.spec == codec.latent_spec and latents.space_id == codec.space_id
            torch.testing.assert_close(latents.values, expected.values, rtol=1e-4, atol=1e-5)
            assert codec.decode(latents).shape[-1] == clip.audio.shape[-1]


def test_shard_sizes_and_folder_contents(corpus):
    assert len(shards(corpus)) > 4
    assert {path.name for path in corpus.iterdir()} == {"corpus.json", "README.md", "train", "validation"}
    assert sorted(path for path in corpus.glob("*/*")) == shards(corpus)
    ends = {split: plan["ends"] for split, plan in json.loads((corpus / "corpus.json").read_text())["splits"].items()}
    assert ends["train"][-1] == 11 and ends["validation"][-1] == 2  # one of them is broken
    sizes = [sum(map(len, pq.read_table(path)["latents"].to_pylist())) for path in shards(corpus)]
    assert len(sizes) == len(ends["train"]) + len(ends["validation"]) and SMALL / 2 < max(sizes) <= SMALL


def test_corpus_loads_with_plain_datasets(corpus, tmp_path):
    import datasets

    files = {"train": [str(path) for path in shards(corpus) if path.parent.name == "train"]}
    by_file = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "a"))
    whole = datasets.load_dataset(str(corpus), cache_dir=str(tmp_path / "b"))
    assert list(by_file) == list(whole["train"]) == rows_of(corpus)["train"]
    assert whole["validation"]["label"] == [None, None] and len(whole) == 2


def test_latents_do_not_depend_on_batching_and_shard_size(codec, sources, corpus, tmp_path):
    codec.max_batch_size, codec.tile_seconds = 1, 0.3  # so that most files are streamed
    encode_corpus(codec, sources, tmp_path / "other", progress=False)
    assert len(shards(tmp_path / "other")) == 2
    for split in ("train", "validation"):
        pairs = zip(
            stored_latents(open_dataset(corpus, split)), stored_latents(open_dataset(tmp_path / "other", split))
        )
        for one, other in pairs:
            torch.testing.assert_close(one.values, other.values, rtol=1e-4, atol=1e-5)


def test_float16_corpus_size_and_error(codec, sources, corpus, tmp_path):
    encode_corpus(codec, sources, tmp_path / "half", dtype="float16", progress=False)
    for one, other in zip(rows_of(corpus)["train"], rows_of(tmp_path / "half")["train"]):
        assert len(one["latents"]) == 2 * len(other["latents"])
    for one, other in zip(stored_latents(open_dataset(corpus)), stored_latents(open_dataset(tmp_path / "half"))):
        assert other.values.dtype == torch.float32
        torch.testing.assert_close(one.values, other.values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name, gain", [("mimi", False), ("encodec in chunks", True)])
def test_codes_and_gains_round_trip(foreign, sources, tmp_path, name, gain):
    codec = from_huggingface(foreign(name))
    layout = None if gain else "mono"
    encode_corpus(codec, sources, tmp_path / "out", layout=layout, progress=False)
    dataset = open_dataset(tmp_path / "out", "validation")
    spec = corpus_spec(dataset)
    assert (spec.codes_dtype, spec.gain, spec.codes_id) == ("int16", gain, codec.codes_id)
    clips = whole_files(open_dataset(sources, "validation"), sample_rate=8000)
    for clip, latents in zip(clips, stored_latents(dataset)):
        expected = codec.encode(clip.audio[None], layout=layout)
        assert torch.equal(latents.codes, expected.codes) and latents.codes.dtype == torch.int64
        torch.testing.assert_close(codec.decode(latents), codec.decode(expected), rtol=1e-3, atol=1e-4)


def test_only_codes_or_only_latents_are_stored(codec, foreign, sources, tmp_path):
    mimi = from_huggingface(foreign("mimi"))
    for kept, lost in (("codes", "latents"), ("latents", "codes")):
        encode_corpus(mimi, sources, tmp_path / kept, only=kept, num_quantizers=2, progress=False)
        dataset = open_dataset(tmp_path / kept)
        assert kept in dataset.column_names and lost not in dataset.column_names
    (latents, *_) = stored_latents(open_dataset(tmp_path / "codes"))
    assert latents.values is None and (latents.codes[:, 2:] == -1).all() and (latents.codes[:, :2] >= 0).all()
    assert latents.layouts() == [ChannelLayout.MONO]
    with pytest.raises(PartitaError, match="Autoencoder .*codes"):
        encode_corpus(codec, sources, tmp_path / "none", only="codes", progress=False)
    assert not (tmp_path / "none").exists()


def test_stereo_is_averaged_for_mono_model(foreign, sources, tmp_path):
    codec = from_huggingface(foreign("dac"))
    encode_corpus(codec, sources, tmp_path / "out", progress=False)
    for clip, latents in zip(
        whole_files(open_dataset(sources), sample_rate=8000), stored_latents(open_dataset(tmp_path / "out"))
    ):
        expected = codec.encode(clip.audio.mean(0)[None, None])
        torch.testing.assert_close(latents.values, expected.values, rtol=1e-3, atol=1e-4)
        assert latents.layouts() == [ChannelLayout.MONO]


# ------------------------------------------------------------------ kills and several processes

WRITER = """
import sys, time, torch
from pathlib import Path
from conftest import tiny_config
from partita.data import encode_corpus
from partita_core import Autoencoder
model, source, output, max_shards = sys.argv[1:]
codec = Autoencoder.from_pretrained(model)
original, calls = codec.encode, []
def encode(audio, **settings):
    while len(list(Path(output).glob("*/latents-*.parquet"))) >= int(max_shards):
        time.sleep(0.01)  # until it is killed
    if audio.any():  # the silence that shows what a codec produces is not counted
        calls.append(len(audio))
    return original(audio, **settings)
codec.encode = encode
done = encode_corpus(codec, source, output, shard_bytes=6000, progress=False)
from accelerate import PartialState
state = PartialState()
said = ["process", state.process_index, "of", state.num_processes, "calls", len(calls)]
said += ["encoded", done.encoded, "broken", len(done.broken)]
print(" ".join(map(str, said)) + "\\n", end="")  # in one write, so that the lines of two processes do not mix
state.destroy_process_group()
"""


def writer(run, sources, output, max_shards, processes=None) -> list[str]:
    launch = [] if processes is None else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    script = output.parent / "writer.py"
    script.write_text(WRITER)
    return [sys.executable, *launch, str(script), str(run / "model"), str(sources), str(output), str(max_shards)]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    flags = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    return os.environ | flags | {"PYTHONPATH": path}


def kill_after(command: list[str], output: Path, count: int) -> None:
    """Start a process, and kill it as soon as it has written some shards."""
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while len(shards(output)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_encoding_resumed_by_two_processes_gives_same_corpus(run, sources, corpus, tmp_path):
    output = tmp_path / "killed"
    for count in (1, 3):
        kill_after(writer(run, sources, output, count), output, count)
        with pytest.raises(PartitaError, match=r"\d+ of \d+ shards of 'train' are missing"):
            open_dataset(output)
    before = {path: path.stat().st_mtime_ns for path in shards(output)}
    assert 3 <= len(before) < len(shards(corpus)) - 1
    command = writer(run, sources, output, 1000, processes="2")
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    said = sorted(line.split() for line in ended.stdout.splitlines() if line.startswith("process"))
    assert [words[:4] for words in said] == [["process", "0", "of", "2"], ["process", "1", "of", "2"]]
    assert all(int(words[5]) > 0 and words[6:] == ["encoded", "12", "broken", "1"] for words in said)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert rows_of(output) == rows_of(corpus)


def test_missing_shards_are_encoded_again_identically(codec, sources, corpus, tmp_path):
    output = tmp_path / "again"
    shutil.copytree(corpus, output)
    for path in shards(output)[1:4]:
        path.unlink()
    left = output / "train" / ".latents-00002.parquet.partita"  # left by a kill during a write
    (left / "new").mkdir(parents=True)
    (left / "new" / "latents-00002.parquet").write_text("half")
    done = encode_corpus(codec, sources, output, progress=False)  # the shard size is that of the first call
    assert (done.files, done.encoded, len(done.broken)) == (13, 12, 1) and "03b.wav" in done.broken[0]
    assert [path.read_bytes() for path in shards(output)] == [path.read_bytes() for path in shards(corpus)]
    assert not left.exists() and encode_corpus(codec, sources, output, progress=False) == done


def test_damaged_shards_are_encoded_again(codec, sources, corpus, tmp_path):
    import datasets

    output = tmp_path / "again"
    shutil.copytree(corpus, output)
    empty, cut, foreign, untold = shards(output)[:4]
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    datasets.Dataset.from_dict({"audio": ["x"]}).to_parquet(foreign)  # without shard metadata
    table = pq.read_table(untold)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"partita": b"{}"}), untold)
    done = encode_corpus(codec, sources, output, progress=False)
    assert (done.files, done.encoded, len(done.broken)) == (13, 12, 1)
    assert [path.read_bytes() for path in shards(output)] == [path.read_bytes() for path in shards(corpus)]


@pytest.mark.parametrize("changes", [{"ends": []}, {"ends": [3, 3]}, {"ends": [-1]}, {"seconds": []}])
def test_invalid_shard_plan_raises(codec, sources, corpus, changes):
    record = json.loads((corpus / "corpus.json").read_text())
    record["splits"]["train"] |= changes
    (corpus / "corpus.json").write_text(json.dumps(record))
    for use in (lambda: open_dataset(corpus), lambda: encode_corpus(codec, sources, corpus, progress=False)):
        with pytest.raises(PartitaError, match="corpus.json: the ends and seconds of 'train'"):
            use()
    record["splits"]["train"] |= {"ends": [99], "seconds": [1.0]}
    (corpus / "corpus.json").write_text(json.dumps(record))
    with pytest.raises(PartitaError, match="other files"):
        encode_corpus(codec, sources, corpus, progress=False)


# ------------------------------------------------------------------ errors


def test_resuming_with_other_settings_or_files_raises(codec, sources, corpus, config, tmp_path):
    def again(model=codec, source=sources, **settings):
        return encode_corpus(model, source, corpus, progress=False, **settings)

    torch.manual_seed(3)
    before = rows_of(corpus)
    with pytest.raises(PartitaError, match=f"space_id {codec.space_id}, not "):
        again(config().model.build().eval())
    with pytest.raises(PartitaError, match="dtype float32, not float16"):
        again(dtype="float16")
    with pytest.raises(PartitaError, match="layout None, not mono"):
        again(layout="mono")
    other = shutil.copytree(sources, tmp_path / "other")
    (other / "train" / "00.wav").unlink()
    with pytest.raises(PartitaError, match="other files than .*/other;"):
        again(source=other)
    with pytest.raises(PartitaError, match="holds latents, not audio"):
        encode_corpus(codec, corpus, tmp_path / "twice", progress=False)
    with pytest.raises(PartitaError, match="is not empty"):
        encode_corpus(codec, sources, other, progress=False)
    (other / "metadata.csv").write_text("file_name,frames\ntrain/01.wav,3\n")
    with pytest.raises(PartitaError, match="column 'frames'"):
        encode_corpus(codec, other, tmp_path / "named", progress=False)
    assert rows_of(corpus) == before


def test_source_of_only_broken_files_leaves_no_folder(codec, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_text("no audio")
    with pytest.raises(PartitaError, match=r"none of 1 files could be encoded; the first: .*a\.wav: is not audio"):
        encode_corpus(codec, tmp_path / "in", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_invalid_corpus_raises(corpus, tmp_path):
    with pytest.raises(PartitaError, match="no split 'test'; it has train, validation"):
        open_dataset(corpus, "test")
    with pytest.raises(PartitaError, match="holds latents, not audio"):
        next(whole_files(open_dataset(corpus)))
    with pytest.raises(PartitaError, match="holds audio, not latents"):
        write_audio(tmp_path / "a.wav", torch.ones(1, 9), 8000)
        (tmp_path / "audio").mkdir()
        (tmp_path / "a.wav").rename(tmp_path / "audio" / "a.wav")
        next(stored_latents(open_dataset(tmp_path / "audio")))
    record = json.loads((corpus / "corpus.json").read_text())
    (corpus / "corpus.json").write_text(json.dumps(record | {"splits": [1]}))
    with pytest.raises(PartitaError, match="corpus.json.splits: expected a mapping"):
        open_dataset(corpus)
    (corpus / "corpus.json").write_text("{")
    with pytest.raises(PartitaError, match="is not JSON"):
        open_dataset(corpus)
    (corpus / "corpus.json").write_text(json.dumps(record))
    shards(corpus)[0].write_text("nonsense")
    with pytest.raises(PartitaError, match="Parquet magic bytes not found"):
        open_dataset(corpus)


def test_damaged_rows_and_mixed_corpora_raise(codec, corpus, sources, foreign, tmp_path):
    import datasets

    dataset = open_dataset(corpus)
    spec, row = corpus_spec(dataset), dataset[0]
    damaged = {
        "frames 11 and layout 0 are inconsistent": {"frames": 11},
        "layout 9 are inconsistent": {"layout": 9},
        "the stored latents are .* bytes": {"latents": row["latents"][:-4]},
        r"some of the stored latents are not finite \(NaN or infinite\)": {
            "latents": row["latents"][:-4] + np.float32("nan").tobytes()
        },
    }
    for message, changes in damaged.items():
        with pytest.raises(PartitaError, match=f"00.wav: .*{message}"):
            spec.unpack(row | changes)
    assert corpus_spec(dataset.shuffle(seed=0).select(range(3))) == spec
    assert corpus_spec(datasets.concatenate_datasets([dataset, open_dataset(corpus, "validation")])) == spec
    encode_corpus(from_huggingface(foreign("dac")), sources, tmp_path / "other", progress=False)
    mixed = datasets.concatenate_datasets([dataset, open_dataset(tmp_path / "other")])
    with pytest.raises(PartitaError, match="mixes latents of several corpora"):
        corpus_spec(mixed)


@pytest.mark.parametrize("split", ["../elsewhere", "/etc", "..", "a/b", ""])
def test_split_name_cannot_leave_the_corpus_folder(corpus, split):
    record = json.loads((corpus / "corpus.json").read_text())
    record["splits"][split] = record["splits"]["train"]
    (corpus / "corpus.json").write_text(json.dumps(record))
    with pytest.raises(PartitaError, match="corpus.json: .* not the name of a split"):
        open_dataset(corpus)
