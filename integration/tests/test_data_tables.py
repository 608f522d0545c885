import io
import json
import tarfile

import pytest
import torch
from partita.data import DataConfig, build_loader, dataset_splits, first_rows, open_dataset, read_audio, write_audio
from partita_core import AudioSpec, ChannelLayout, PartitaError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def sound(tmp_path):
    """The bytes of a short file of one constant."""

    def make(value: float = 0.25) -> bytes:
        write_audio(tmp_path / "one.wav", torch.full((1, 300), value), 8000)
        return (tmp_path / "one.wav").read_bytes()

    return make


@pytest.fixture
def table(sound):
    """Rows of audio with labels."""
    import datasets

    def make(*labels: str):
        audio = [{"path": f"{label}.wav", "bytes": sound(0.25)} for label in labels]
        rows = datasets.Dataset.from_dict({"audio": audio, "label": list(labels)})
        return rows.cast_column("audio", datasets.Audio(decode=False))

    return make


def crop_values(folder, split: str = "train") -> float:
    """The mean of the first batch of a streamed split."""
    config = DataConfig(
        augmentation=None, num_workers=0, batch_size=2, streaming=True, shuffle_buffer=2, silence_db=None
    )
    spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
    rows = open_dataset(folder, split, streaming=True)
    return float(next(iter(build_loader(rows, config, audio_spec=spec, crop_multiple=10, seed=0)))["audio"].abs().max())


# ------------------------------------------------------------------ Parquet


@pytest.mark.parametrize(
    "files",
    [
        {"train": "Train/0.parquet", "validation": "dev/0.parquet", "test": "Test/0.parquet"},
        {"train": "data/train-0-of-1.parquet", "validation": "data/val-0-of-1.parquet", "test": "data/TEST.parquet"},
    ],
)
def test_parquet_splits_by_file_name(tmp_path, table, files):
    for split, name in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        table(split).to_parquet(tmp_path / "set" / name)
    assert dataset_splits(tmp_path / "set") == ["train", "validation", "test"]
    for split in files:
        assert open_dataset(tmp_path / "set", split)["label"] == [split]
    assert open_dataset(tmp_path / "set", "val", streaming=True).take(1) is not None


def test_parquet_outside_splits_is_reported_and_ambiguous_raises(tmp_path, table, caplog):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train-0", "extra"):
        table(name).to_parquet(folder / f"{name}.parquet")
    assert open_dataset(folder)["label"] == ["train-0"]
    assert "1 file ('extra.parquet')" in caplog.text
    table("x").to_parquet(folder / "eval-0.parquet")
    with pytest.raises(PartitaError, match="'eval-0.parquet' .*splits"):
        open_dataset(folder)


def test_readme_lists_splits(tmp_path, table):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("one", "two"):
        table(name).to_parquet(folder / f"{name}.parquet")
    files = "  - split: train\n    path: one.parquet\n  - split: dev\n    path: two.parquet\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    assert dataset_splits(folder) == ["train", "validation"]
    assert open_dataset(folder, "validation")["label"] == open_dataset(folder, "dev")["label"] == ["two"]
    with pytest.raises(PartitaError, match="no split 'test'; it has train, dev"):
        open_dataset(folder, "test")


def test_parquet_with_audio_next_to_audio_files_raises(tmp_path, table, sound):
    folder = tmp_path / "set"
    folder.mkdir()
    table("a", "b").to_parquet(folder / "train.parquet")
    (folder / "stray.wav").write_bytes(sound())
    with pytest.raises(PartitaError, match=r"1 audio file \('stray.wav'\) and 1 Parquet file \('train.parquet'\)"):
        open_dataset(folder)


def test_parquet_without_audio_next_to_audio_files_is_reported(tmp_path, sound, caplog):
    import datasets

    folder = tmp_path / "set"
    folder.mkdir()
    datasets.Dataset.from_dict({"file_name": ["a.wav"], "label": ["x"]}).to_parquet(folder / "labels.parquet")
    (folder / "a.wav").write_bytes(sound())
    assert open_dataset(folder)["file_name"] == ["a.wav"]
    assert "1 Parquet file ('labels.parquet')" in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
def test_decoded_arrays_raise(tmp_path, streaming):
    import datasets

    folder = tmp_path / "set"
    folder.mkdir()
    rows = datasets.Dataset.from_dict({"audio": [{"array": [0.0, 0.5], "sampling_rate": 8000, "path": None}]})
    rows.to_parquet(folder / "train.parquet")
    with pytest.raises(PartitaError, match="decoded arrays.*bytes.*soundfile.write") as caught:
        open_dataset(folder, streaming=streaming)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ save_to_disk


def test_save_to_disk_folder(tmp_path, table):
    table("a", "b").save_to_disk(tmp_path / "set")
    assert dataset_splits(tmp_path / "set") == ["train"]
    rows = open_dataset(tmp_path / "set")
    assert rows["label"] == ["a", "b"] and rows["file_name"] == ["a.wav", "b.wav"]
    assert torch.equal(read_audio(rows[0]["audio"])[0], torch.full((1, 300), 0.25))
    assert crop_values(tmp_path / "set") == 0.25
    with pytest.raises(PartitaError, match="no split 'test'; it has train"):
        open_dataset(tmp_path / "set", "test")


def test_save_to_disk_splits(tmp_path, table):
    import datasets

    splits = datasets.DatasetDict({"train": table("a"), "dev": table("b", "c")})
    splits.cast_column("audio", datasets.Audio()).save_to_disk(tmp_path / "set")  # the default
    assert dataset_splits(tmp_path / "set") == ["train", "validation"]
    assert open_dataset(tmp_path / "set", "validation")["label"] == ["b", "c"]
    (tmp_path / "set/dataset_dict.json").write_text("{}")
    with pytest.raises(PartitaError, match="dataset_dict.json: cannot be read"):
        open_dataset(tmp_path / "set")


# ------------------------------------------------------------------ WebDataset


def pack(path, **members: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def archives(tmp_path, sound):
    def sample(key: str, value: float) -> dict[str, bytes]:
        fields = {"label": key, "tempo": 90, "txt": "ignored"}
        made = {"wav": sound(value), "json": json.dumps(fields).encode(), "txt": f"text of {key}".encode()}
        return {f"{key}.{suffix}": data for suffix, data in made.items()}

    pack(tmp_path / "set/train-0.tar", **sample("a", 0.25), **sample("b", 0.25))
    pack(tmp_path / "set/train-1.tar", **sample("c", 0.25))
    pack(tmp_path / "set/val-0.tar", **sample("d", 0.5))
    return tmp_path / "set"


def test_archives(archives):
    assert dataset_splits(archives) == ["train", "validation"]
    rows = open_dataset(archives)
    assert rows["file_name"] == ["a.wav", "b.wav", "c.wav"]
    assert rows["label"] == ["a", "b", "c"] and rows["tempo"] == [90, 90, 90]
    assert rows["text"] == ["text of a", "text of b", "text of c"]
    assert torch.equal(read_audio(open_dataset(archives, "dev")[0]["audio"])[0], torch.full((1, 300), 0.5))
    assert open_dataset(archives / "val-0.tar")["label"] == ["d"]


def test_archives_stream(archives):
    rows = first_rows(open_dataset(archives, streaming=True))
    assert rows["file_name"] == ["a.wav", "b.wav", "c.wav"] and rows["label"] == ["a", "b", "c"]
    assert rows["text"][2] == "text of c"
    assert crop_values(archives) == 0.25 and crop_values(archives, "validation") == 0.5


@pytest.mark.parametrize(
    "members, reason",
    [
        ({"a.txt": b"x", "b.txt": b"y"}, "no sample has an audio file .*have text"),
        ({"a.mix.wav": b"x", "a.voice.wav": b"y"}, r"'a' has 2 audio files \(mix.wav, voice.wav\)"),
        ({"a.wav": b"x", "a.json": b"{"}, "'a' cannot be read"),
        ({"a.wav": b"x", "a.json": b"[1]"}, "JSON of the sample 'a' is not an object"),
        ({"a.wav": b"x", "a.txt": b"\xff"}, "'a' cannot be read"),
        ({"notes": b"x"}, "no sample has an audio file .*no fields"),
    ],
)
def test_invalid_archives_raise(tmp_path, members, reason):
    pack(tmp_path / "set/train.tar", **members)
    with pytest.raises(PartitaError, match=reason) as caught:
        open_dataset(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_samples_without_audio_and_late_fields(tmp_path, sound, caplog):
    members = {f"{i:02}.{suffix}": data for i in range(16) for suffix, data in (("wav", sound()), ("json", b"{}"))}
    pack(tmp_path / "set/x.tar", **members, **{"98.txt": b"x", "99.json": b'{"new": 1, "label": 2}'})
    rows = open_dataset(tmp_path / "set")
    assert len(rows) == 18 and rows[17]["audio"]["bytes"] == b"" and rows["file_name"][16:] == ["98", "99"]
    assert set(rows.column_names) == {"audio", "file_name"}
    assert "label, new, text" in caplog.text


def test_damaged_archive_raises(archives):
    good = (archives / "train-1.tar").read_bytes()
    (archives / "train-1.tar").write_bytes(good[:700])
    with pytest.raises(PartitaError, match="train-1.tar: cannot be read as an archive") as caught:
        open_dataset(archives)
    assert "\n" not in str(caught.value)
    stream = open_dataset(archives, streaming=True)
    config = DataConfig(
        augmentation=None, num_workers=0, batch_size=9, streaming=True, shuffle_buffer=2, silence_db=None
    )
    spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
    batch = next(iter(build_loader(stream, config, audio_spec=spec, crop_multiple=10, seed=0)))
    assert set(batch["file_name"]) == {"a.wav", "b.wav"}
    assert {reason.file for reason in batch["broken"]} == {str(archives / "train-1.tar")}
    (archives / "train-0.tar").unlink()
    with pytest.raises(PartitaError, match="train-1.tar: cannot be read as an archive"):
        open_dataset(archives, streaming=True)


def test_replaced_archive_is_read_again(archives, sound):
    assert open_dataset(archives, "validation")["label"] == ["d"]
    pack(archives / "val-0.tar", **{"e.wav": sound(), "e.json": b'{"label": "e", "tempo": 1}'})
    assert open_dataset(archives, "validation")["label"] == ["e"]


def test_archives_next_to_parquet_raise_and_next_to_audio_are_reported(archives, table, sound, tmp_path, caplog):
    (archives / "a.wav").write_bytes(sound())
    assert open_dataset(archives)["file_name"] == ["a.wav"]
    assert "left out 3 archives ('train-0.tar', ...)" in caplog.text
    (archives / "a.wav").unlink()
    table("x").to_parquet(archives / "train.parquet")
    with pytest.raises(PartitaError, match="1 Parquet file .* and 3 archives"):
        open_dataset(archives)
