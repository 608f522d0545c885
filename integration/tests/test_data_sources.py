import os
from dataclasses import replace

import pytest
import torch
from partita.data import (
    AudioCrops,
    DataConfig,
    audio_info,
    build_loader,
    dataset_splits,
    first_rows,
    open_dataset,
    read_audio,
    whole_files,
    write_audio,
)
from partita_core import AudioSpec, ChannelLayout, PartitaError


def clip(path, samples: int = 400, channels: int = 1):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, torch.full((channels, samples), 0.25), 8000)


@pytest.fixture
def folder(tmp_path):
    for name in ["train/b.wav", "train/deep/a.flac", "test/t.wav"]:
        clip(tmp_path / name)
    clip(tmp_path / "beside.wav")
    clip(tmp_path / "train/.hidden.wav")
    (tmp_path / "train/notes.txt").write_text("no audio")
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,duration_s,sample_rate\n"
        'train/b.wav,"7",0.05,8000\ntest/t.wav,,0.05,8000\ntrain/gone.wav,x,1,8000\n'
    )
    return tmp_path


def test_folder_rows_have_metadata(folder):
    rows = list(open_dataset(folder, "train"))
    assert [row["file_name"] for row in rows] == ["train/b.wav", "train/deep/a.flac"]
    assert rows[0]["audio"] == {"path": str(folder / "train/b.wav"), "bytes": None}
    assert (rows[0]["label"], rows[0]["duration_s"], rows[0]["sample_rate"]) == ("7", 0.05, 8000)
    assert rows[1]["label"] is None
    assert open_dataset(folder, "test")["label"] == [None]


def test_metadata_in_split_folder(tmp_path):
    clip(tmp_path / "test/t.wav")
    (tmp_path / "test/metadata.csv").write_text("\ufefffile_name,text\nt.wav,hello\n", encoding="utf-8")
    assert open_dataset(tmp_path, "test")["text"] == ["hello"]
    assert open_dataset(tmp_path / "test")["text"] == ["hello"]


def test_folder_without_splits_is_train(tmp_path):
    clip(tmp_path / "b/x.wav")
    clip(tmp_path / "a.wav")
    assert open_dataset(str(tmp_path))["file_name"] == ["a.wav", "b/x.wav"]
    with pytest.raises(PartitaError, match="no split 'test'; .* 'train'"):
        open_dataset(tmp_path, "test")


def test_missing_split_raises(folder):
    with pytest.raises(PartitaError, match="no split 'validation'; it has train, test"):
        open_dataset(folder, "validation")


@pytest.fixture
def collection(tmp_path):
    for name in ["music/train/a.wav", "music/test/a.wav", "speech/train/deep/b.wav", "speech/validation/c.wav"]:
        clip(tmp_path / name)
    (tmp_path / "music/metadata.csv").write_text("file_name,label\ntrain/a.wav,piano\n")
    (tmp_path / "speech/train/metadata.csv").write_text("file_name,text,tempo\ndeep/b.wav,hello,90\n")
    (tmp_path / "README.md").write_text("no audio")
    return tmp_path


def test_collection_is_union_of_splits(collection):
    rows = list(open_dataset(collection))
    assert [row["file_name"] for row in rows] == ["music/train/a.wav", "speech/train/deep/b.wav"]
    assert rows[0]["audio"]["path"] == str(collection / "music/train/a.wav")
    assert [(row["label"], row["text"], row["tempo"]) for row in rows] == [("piano", None, None), (None, "hello", 90.0)]
    assert open_dataset(collection, "test")["file_name"] == ["music/test/a.wav"]
    assert dataset_splits(collection) == ["train", "validation", "test"]
    assert open_dataset(collection, "dev")["file_name"] == ["speech/validation/c.wav"]
    with pytest.raises(PartitaError, match="no split 'fold1'; it has train, validation, test"):
        open_dataset(collection, "fold1")


def test_collection_metadata_above_sets(collection):
    (collection / "metadata.csv").write_text("file_name,label\nmusic/test/a.wav,organ\n")
    assert open_dataset(collection, "test")["label"] == ["organ"]


def test_sub_folders_with_and_without_splits_raise(collection):
    clip(collection / "more/x.wav")
    with pytest.raises(PartitaError, match="'music/test' looks like a split, .*'more' has no"):
        open_dataset(collection)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("name,label\na.wav,x\n", "has no column file_name"),
        ("file_name,duration_s\na.wav,long\n", "could not convert"),
        ("file_name,label\na.wav,x,y\n", "line 2 has more cells"),
        ('file_name,label\na.wav,"x\n', "cannot be read"),
        ("file_name,label\na.wav,x\n,y\n", r"line 3 has no file_name"),
        (f"file_name,channels\na.wav,{2**63}\n", "9223372036854775808 .*64 bits"),
        (f"file_name,sample_rate\na.wav,-{10**30}\n", "-1000.* 64 bits"),
    ],
)
def test_invalid_metadata_raises(tmp_path, text, reason):
    clip(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(PartitaError, match=reason) as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_metadata_without_permission_raises(tmp_path, monkeypatch):
    clip(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name\na.wav\n")
    opened = type(tmp_path).open

    def locked(path, *args, **kwargs):  # root can read everything, so permissions are simulated
        if path.name == "metadata.csv":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", locked)
    with pytest.raises(PartitaError, match=r"metadata.csv: cannot be read \(.*Permission denied\)"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"caf\xe9/a.wav"])
def test_file_name_not_utf8_raises(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    clip(tmp_path / "a.wav")
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / "a.wav").read_bytes())
    except OSError:
        pytest.skip("the file system takes no such names")
    with pytest.raises(PartitaError, match=r"caf\\xe9.*: the name is not UTF-8; rename the file") as caught:
        open_dataset(tmp_path)
    assert str(caught.value).isascii()


def test_paths_without_audio_raise(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(PartitaError, match=r"no audio files .*\.wav"):
        open_dataset(tmp_path)
    with pytest.raises(PartitaError, match="is a file; .*folder"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(PartitaError, match="no such folder"):
        open_dataset(tmp_path / "missing")


def test_unavailable_hub_name_raises(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(PartitaError, match=r"somebody/music: no such folder.*\(not in the cache\)$"):
        open_dataset("somebody/music")


def test_hub_name_reads_as_its_folder(folder, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, repo_type: asked.append((name, repo_type)) or folder
    )
    assert open_dataset("somebody/music", "test")["file_name"] == ["test/t.wav"]
    assert asked == [("somebody/music", "dataset")]


@pytest.fixture
def parquet(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    clip(tmp_path / "a.flac", 300, 2)
    held = {"path": "a.flac", "bytes": (tmp_path / "a.flac").read_bytes()}
    table = datasets.Dataset.from_dict({"audio": [held, held | {"path": None}], "label": ["x", "y"]})
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "test-00000-of-00001.parquet")
    return tmp_path / "set"


def test_parquet_crops_equal_folder_crops(parquet):
    dataset = open_dataset(parquet, "test")
    assert dataset["file_name"] == ["a.flac", "row 1"] and dataset["label"] == ["x", "y"]
    assert torch.equal(read_audio(dataset[0]["audio"])[0], torch.full((2, 300), 0.25))
    spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
    config = DataConfig(augmentation=None, silence_db=None)
    crops = AudioCrops(dataset, audio_spec=spec, crop_samples=100, config=config, seed=0)
    assert torch.equal(crops[0, 1]["audio"], torch.full((1, 100), 0.25))
    assert len(open_dataset(parquet / "test-00000-of-00001.parquet", "train")) == 2
    assert dataset_splits(parquet) == ["test"]


def test_invalid_parquet_raises(parquet):
    import datasets

    with pytest.raises(PartitaError, match="no split 'validation'; it has test"):
        open_dataset(parquet, "validation")
    datasets.Dataset.from_dict({"sound": [1]}).to_parquet(parquet / "test-00000-of-00001.parquet")
    with pytest.raises(PartitaError, match="no column audio; valid: sound"):
        open_dataset(parquet, "test")
    (parquet / "test-00000-of-00001.parquet").write_text("nonsense")
    with pytest.raises(PartitaError, match="Parquet magic bytes not found"):
        open_dataset(parquet, "test")


def test_damaged_shard_error_names_the_cause(parquet):
    good = parquet / "test-00000-of-00001.parquet"
    (parquet / "test-00001-of-00002.parquet").write_bytes(good.read_bytes()[:-40])
    good.rename(parquet / "test-00000-of-00002.parquet")
    with pytest.raises(PartitaError, match="occurred while generating the dataset: .*Parquet magic bytes") as caught:
        open_dataset(parquet, "test")
    assert "\n" not in str(caught.value)


@pytest.fixture
def holed(parquet):
    """Parquet whose first row has no audio."""
    import datasets

    held = open_dataset(parquet, "test")[0]["audio"]
    table = datasets.Dataset.from_dict({"audio": [None, held, {"path": None, "bytes": b"no audio"}]})
    table.to_parquet(parquet / "test-00000-of-00001.parquet")
    return parquet


def test_rows_without_audio_are_left_out_and_reported(holed):
    dataset = open_dataset(holed, "test")
    assert dataset["file_name"] == ["row 0", "a.flac", "row 2"]
    spec = AudioSpec(8000, 1, (ChannelLayout.MONO,))
    config = DataConfig(augmentation=None, silence_db=None, num_workers=0, batch_size=9)
    crops = AudioCrops(dataset, audio_spec=spec, crop_samples=100, config=config, seed=0)
    for index, said in {0: "row 0: is empty (0 bytes)", 2: "row 2: is not audio that can be read"}.items():
        item = crops[0, index]
        assert item["index"] == 1 and any(found.startswith(said) for found in item["broken"])
    broken: list[str] = []
    assert [clip.name for clip in whole_files(dataset, broken=broken)] == ["a.flac"]
    assert [reason.split(":")[0] for reason in broken] == ["row 0", "row 2"]
    stream = open_dataset(holed, "test", streaming=True)
    assert first_rows(stream)["file_name"] == ["row 0", "a.flac", "row 2"]
    reader = build_loader(
        stream, replace(config, streaming=True, shuffle_buffer=2), audio_spec=spec, crop_multiple=10, seed=0
    )
    batch = next(iter(reader))
    places = {f"row {row} of test-00000-of-00001.parquet" for row in (0, 2)}
    assert set(batch["file_name"]) == {"a.flac"} and {found.file for found in batch["broken"]} == places
    with pytest.raises(PartitaError, match="audio without a name: no such file"):
        audio_info(None)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("audio, kind", [([1, 2], "int64"), ([[0.5], [0.25]], r"list<\w+: double>")])
def test_audio_column_of_wrong_type_raises(parquet, audio, kind, streaming):
    import datasets

    datasets.Dataset.from_dict({"audio": audio}).to_parquet(parquet / "test-00000-of-00001.parquet")
    with pytest.raises(PartitaError, match=f"column audio is {kind}, not path and bytes"):
        open_dataset(parquet, "test", streaming=streaming)


def test_whole_files_collects_broken_files(tmp_path):
    clip(tmp_path / "a.wav", 400, 2)
    (tmp_path / "b.wav").write_text("not audio")
    clip(tmp_path / "c.wav", 100)
    broken: list[str] = []
    clips = list(whole_files(open_dataset(tmp_path), sample_rate=16000, broken=broken))
    assert [(clip.index, clip.name, clip.layout.name, clip.audio.shape) for clip in clips] == [
        (0, "a.wav", "STEREO", (2, 800)),
        (2, "c.wav", "MONO", (1, 200)),
    ]
    assert len(broken) == 1 and broken[0].startswith(f"{tmp_path / 'b.wav'}: is not audio")
    assert clips[0].sample_rate == 16000 and clips[0].row == {}


def test_whole_files_logs_broken_files(tmp_path, caplog):
    clip(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_text("not audio")
    assert [found.name for found in whole_files(open_dataset(tmp_path))] == ["a.wav"]
    assert f"left out: {tmp_path / 'b.wav'}: is not audio" in caplog.text


def test_whole_files_of_only_broken_files_raises(tmp_path):
    (tmp_path / "b.wav").write_text("not audio")
    with pytest.raises(PartitaError, match=r"none of 1 files can be read; the first: .*b\.wav: is not audio"):
        list(whole_files(open_dataset(tmp_path)))


@pytest.mark.shared_data
def test_shared_recordings():
    from pathlib import Path

    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    music = data / "music"
    if not music.is_dir():
        pytest.skip("no recordings beside the repository")
    dataset = open_dataset(music, "test")
    assert set(dataset["split"]) == {"test"} and None not in dataset["caption"]
    first = next(whole_files(dataset))
    assert first.audio.shape[1] == pytest.approx(first.row["duration_s"] * first.sample_rate, abs=50)
    everything = open_dataset(data, "validation")
    assert {name.split("/")[0] for name in everything["file_name"]} >= {"music", "speech", "sound"}
    assert None not in everything["task"] and {"instrument_family", "spoken_digit"} < set(everything["task"])
