"""`partita demo`: the files that it replaces and those that it keeps."""

import shutil

import pytest
from partita import recipes
from partita.cli import main
from partita.training import Interrupted, RunFolder
from partita_core import override


@pytest.fixture
def demo(monkeypatch, config, tones, tmp_path):
    """The arguments of a demo of a small model."""
    monkeypatch.setitem(recipes.RECIPES, "genae_tiny", lambda: override(config(steps=1), ["trainer.log_every=1"]))
    return "demo", "--data", tones, "--output", tmp_path


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_demo_starts_over_in_its_own_folder_only(demo, ok, refused, tmp_path):
    ok(*demo)
    (tmp_path / "run" / "notes").touch()
    before = files(tmp_path)
    assert "holds 'notes'" in refused(*demo)
    assert files(tmp_path) == before
    (tmp_path / "run" / "notes").unlink()
    (tmp_path / "run" / "samples" / "old.wav").touch()
    config = RunFolder(tmp_path / "run").config.read_bytes()
    ok(*demo)
    assert not (tmp_path / "run" / "samples" / "old.wav").exists()
    assert RunFolder(tmp_path / "run").config.read_bytes() == config
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("minutes", ["0", "nan", "inf"])
def test_demo_minutes_must_be_positive(demo, refused, minutes):
    assert f"--minutes: {str(minutes)!r}" in refused(*demo, "--minutes", minutes)


def test_demo_keeps_runs_of_others(demo, refused, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = files(tmp_path)
    assert "run that is not from this demo" in refused(*demo)
    RunFolder(tmp_path / "run").config.write_text("[]")
    assert "run that is not from this demo" in refused(*demo)
    RunFolder(tmp_path / "run").config.unlink()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert "holds 'notes.txt'" in refused(*demo)
    assert files(tmp_path).keys() - before.keys() == {(tmp_path / "run" / "notes.txt").relative_to(tmp_path)}


def test_demo_without_readable_data_removes_nothing(demo, ok, refused, tmp_path):
    ok(*demo)
    before = files(tmp_path)
    (tmp_path / "empty").mkdir()
    for data in ("none", "empty"):
        refused(*demo[:2], tmp_path / data, *demo[3:])
    assert files(tmp_path) == before


def test_demo_keeps_foreign_files_in_run_folder(demo, refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert "holds 'notes.txt'" in refused(*demo)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.html", "unseen.safetensors", "notes.txt"])
def test_demo_keeps_foreign_files_in_output_folder(demo, refused, tmp_path, name):
    (tmp_path / name).write_text("mine")
    assert f"holds '{name}'" in refused(*demo)
    assert files(tmp_path) == {(tmp_path / name).relative_to(tmp_path): b"mine"}


def test_interrupted_demo_does_not_suggest_resume(demo, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise Interrupted("interrupted after step 1; give the command again with --resume", 2)

    monkeypatch.setattr("partita.training.train", interrupted)
    assert main([str(argument) for argument in demo]) == 130
    assert "--resume" not in capsys.readouterr().err
