"""Resuming a corpus: one writer, one precision, unchanged files, and files that were missing at first."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from partita.data import dataset_splits, encode_corpus, open_dataset
from partita_core import PartitaError, file_lock

pytestmark = pytest.mark.usefixtures("datasets_cache")

SMALL = 6000  # bytes per shard


@pytest.fixture
def corpus(codec, tones, tmp_path) -> Path:
    encode_corpus(codec, tones, tmp_path / "corpus", shard_bytes=SMALL, progress=False)
    return tmp_path / "corpus"


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/latents-*.parquet"))


def test_resuming_with_other_precision_raises(codec, tones, corpus):
    assert json.loads((corpus / "corpus.json").read_text())["precision"] == "float32"
    with pytest.raises(PartitaError, match="precision float32, not bfloat16"):
        encode_corpus(codec.optimize(precision="bf16"), tones, corpus, progress=False)


def test_resuming_with_replaced_file_raises(codec, tones, tmp_path):
    sources = shutil.copytree(tones, tmp_path / "in")
    encode_corpus(codec, sources, tmp_path / "out", shard_bytes=SMALL, progress=False)
    before = [path.read_bytes() for path in shards(tmp_path / "out")]
    shards(tmp_path / "out")[0].unlink()
    for file in sources.rglob("*.wav"):
        os.utime(file, (1, 1))  # a copy with other times has the same contents
    encode_corpus(codec, sources, tmp_path / "out", progress=False)
    assert [path.read_bytes() for path in shards(tmp_path / "out")] == before
    audio = bytearray((sources / "train" / "tone_4.wav").read_bytes())
    audio[len(audio) // 2] ^= 1
    (sources / "train" / "tone_4.wav").write_bytes(audio)  # with the same name and size
    with pytest.raises(PartitaError, match=r"train/tone_4\.wav has changed since it was encoded"):
        encode_corpus(codec, sources, tmp_path / "out", progress=False)
    assert [path.read_bytes() for path in shards(tmp_path / "out")] == before


def test_file_missing_at_first_is_encoded_by_next_call(codec, tones, corpus, tmp_path):
    source = shutil.copytree(tones, tmp_path / "in")
    away = source / "train" / "tone_2.wav"
    audio = away.read_bytes()
    away.write_bytes(b"")
    done = encode_corpus(codec, source, tmp_path / "out", shard_bytes=SMALL, progress=False)
    assert (done.encoded, len(done.broken)) == (10, 1)
    others = {path: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    away.write_bytes(audio)
    done = encode_corpus(codec, source, tmp_path / "out", progress=False)
    assert (done.encoded, len(done.broken)) == (11, 0)
    assert sum(path.stat().st_mtime_ns != then for path, then in others.items()) == 1
    for one, other in zip(open_dataset(corpus), open_dataset(tmp_path / "out"), strict=True):
        assert all(one[name] == other[name] for name in ("file_name", "frames", "audio_length"))


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such locks")
def test_second_writer_of_corpus_raises(codec, tones, corpus):
    missing = shards(corpus)[0]
    missing.unlink()
    with file_lock(corpus / "corpus.json"), pytest.raises(PartitaError, match="corpus is being written by another"):
        encode_corpus(codec, tones, corpus, progress=False)
    assert not missing.exists()
    encode_corpus(codec, tones, corpus, progress=False)
    assert missing.exists()


def test_foreign_files_in_corpus_folder_are_kept(codec, tmp_path, monkeypatch):
    from partita.data.corpus import encode as corpus

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_text("no audio")
    made = corpus.shards_to_make

    def beside(*arguments):
        (tmp_path / "out" / "notes").write_text("mine")
        return made(*arguments)

    monkeypatch.setattr(corpus, "shards_to_make", beside)
    with pytest.raises(PartitaError, match="none of 1 files could be encoded"):
        encode_corpus(codec, tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes"]


def test_corpus_name_with_a_dot(run, tones, tmp_path, ok, refused):
    ok("encode", run / "model", tones, "-o", tmp_path / "corpus.v1")
    assert dataset_splits(tmp_path / "corpus.v1") == ["train", "validation", "test"]
    assert "must be a folder" in refused("encode", run / "model", tones, "-o", tmp_path / "corpus.safetensors")
