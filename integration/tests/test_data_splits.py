import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from partita.data import dataset_splits, open_dataset, write_audio
from partita_core import PartitaError


@pytest.fixture
def lay(tmp_path) -> Callable[..., Path]:
    """Write audio files with the given names, and return the folder."""
    write_audio(tmp_path / "one.wav", torch.full((1, 400), 0.25), 8000)
    audio = (tmp_path / "one.wav").read_bytes()
    folder = tmp_path / "data"

    def make(*names: str) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(audio)
        return folder

    return make


def names(folder: Path, split: str = "train") -> list[str]:
    return open_dataset(folder, split)["file_name"]


@pytest.mark.parametrize(
    "train, validation, test",
    [
        ("train", "valid", "test"),
        ("Train", "val", "Test"),
        ("training", "dev", "TESTING"),
        ("TRAIN", "Validation", "x"),
    ],
)
def test_split_synonyms_and_case(lay, train, validation, test):
    folder = lay(f"{train}/a.wav", f"{validation}/b.wav", f"{test}/c.wav")
    assert names(folder) == [f"{train}/a.wav"]
    for asked in ("validation", "val", "DEV"):
        assert names(folder, asked) == [f"{validation}/b.wav"]
    expected = ["train", "validation", "test"] if test != "x" else ["train", "validation"]
    assert dataset_splits(folder) == expected
    if test != "x":
        assert names(folder, "test") == [f"{test}/c.wav"]


def test_collection_with_split_synonyms(lay):
    folder = lay("music/Train/a.wav", "music/Test/b.wav", "speech/train/c.wav", "speech/dev/d.wav", "loose.wav")
    assert names(folder) == ["music/Train/a.wav", "speech/train/c.wav"]
    assert names(folder, "validation") == ["speech/dev/d.wav"] and names(folder, "test") == ["music/Test/b.wav"]


@pytest.mark.parametrize(
    "files, named",
    [
        (["train/a.wav", "val/b.wav", "dev/c.wav"], ["'dev'", "'val'", "validation"]),
        (["train/a.wav", "Train/b.wav"], ["'Train'", "'train'"]),
        (["train/a.wav", "test_set/b.wav"], ["'test_set'", "train"]),
        (["train-clean-100/a.wav", "test-clean/b.wav"], ["'test-clean'"]),
        (["FSD.dev_audio/a.wav", "FSD.eval_audio/b.wav"], ["'FSD.dev_audio'"]),
        (["train/a.wav", "eval/b.wav"], ["'eval'", "train"]),
        (["tracks/a.wav", "test2/b.wav"], ["'test2'"]),
        (["a/b/train/x.wav", "a/b/test/y.wav"], ["'test'", "'train'", "a/b"]),
        (["LibriSpeech/train-clean-100/1/x.wav", "LibriSpeech/test-clean/2/y.wav"], ["'test-clean'", "LibriSpeech"]),
        (["music/test/a.wav", "more/b.wav"], ["'music/test'", "'more'"]),
    ],
)
def test_ambiguous_split_names_raise(lay, files, named):
    folder = lay(*files)
    with pytest.raises(PartitaError) as caught:
        open_dataset(folder)
    assert all(name in str(caught.value) for name in named) and "\n" not in str(caught.value)
    with pytest.raises(PartitaError):
        dataset_splits(folder)


def test_similar_training_folder_names_are_train(lay):
    folder = lay("train-clean-100/a.wav", "train-other/b.wav", "artist/Tests/c.wav")
    assert len(names(folder)) == 3 and dataset_splits(folder) == ["train"]


def test_files_outside_splits_are_reported(lay, caplog):
    folder = lay("train/a.wav", "validation/b.wav", "test/c.wav", "test_noisy/d.wav", "extra/e.wav", "f.wav")
    assert names(folder, "test") == ["test/c.wav"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "3 audio files" in lines[0] and "'extra/e.wav'" in lines[0]
    open_dataset(folder, "train")
    assert len(caplog.records) == 1  # the same line is logged once


def test_only_first_process_logs_warnings(lay, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    open_dataset(lay("train/a.wav", "b.wav"))
    assert not caplog.records


def test_links_are_followed_but_not_cycles(lay, tmp_path):
    lay("train/a.wav")
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/b.wav").write_bytes((tmp_path / "one.wav").read_bytes())
    folder = tmp_path / "data"
    (folder / "test").symlink_to(tmp_path / "elsewhere")
    (folder / "train/more").symlink_to(tmp_path / "elsewhere/deep")
    (folder / "train/again").symlink_to(folder)
    (tmp_path / "elsewhere/deep/up").symlink_to(tmp_path / "elsewhere")
    assert names(folder) == ["train/a.wav", "train/more/b.wav"]
    assert names(folder, "test") == ["test/deep/b.wav"]


def test_multiplying_links_raise(lay, tmp_path):
    folder = lay(*(f"{i}/a.wav" for i in range(6)))
    for i in range(6):
        for j in range(6):
            (folder / f"{i}/to{j}").symlink_to(folder / str(j))
    with pytest.raises(PartitaError, match="more than 16 links"):
        open_dataset(folder)


def test_folder_without_permission_is_reported(lay, caplog, monkeypatch):
    import os

    folder, scandir = lay("a.wav", "closed/b.wav"), os.scandir

    def locked(path):  # root can read everything, so permissions are simulated
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert names(folder) == ["a.wav"]
    assert "1 folder ('closed')" in caplog.text


def test_unsupported_formats_are_reported(lay, caplog):
    folder = lay("a.wav", "b.m4a", "deep/c.M4A", "d.wma", "notes.txt", ".e.m4a")
    with caplog.at_level(logging.WARNING):
        assert names(folder) == ["a.wav"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "3 files" in lines[0] and "'b.m4a'" in lines[0] and "2 .m4a, 1 .wma" in lines[0]


def test_folder_of_only_unsupported_formats_raises(lay, caplog):
    with pytest.raises(PartitaError, match="no audio files"):
        open_dataset(lay("b.m4a"))
    assert "1 .m4a" in caplog.text


def test_broken_links_are_reported(lay, caplog, tmp_path):
    folder = lay("train/a.wav")
    (folder / "train/more").symlink_to(tmp_path / "unmounted")
    assert names(folder) == ["train/a.wav"]
    assert "left out 1 broken link ('train/more')" in caplog.text
