"""`partita demo`: its report, and the files that it replaces and those that it keeps."""

import shutil
import sys
import webbrowser
from types import SimpleNamespace

import pytest
from partita import recipes
from partita.cli import main
from partita.training import Interrupted, RunFolder
from partita_core import PartitaError, override
from PIL import Image


@pytest.fixture
def demo(monkeypatch, config, tones, tmp_path):
    """The arguments of a demo of a small model, without pretrained models and a browser."""
    settings = ["trainer.log_every=1", "trainer.precision=auto"]
    monkeypatch.setitem(recipes.RECIPES, "music_pocket", lambda: override(config(steps=1), settings))
    monkeypatch.setitem(sys.modules, "partita_pretrained", None)
    return "demo", "--data", tones, "--output", tmp_path, "--no-open"


@pytest.fixture
def pretrained(demo, monkeypatch, config, tones, tmp_path_factory):
    """A package of pretrained models with a small model of speech and a clip."""
    folder = tmp_path_factory.mktemp("pretrained")
    config().model.build().eval().save_pretrained(folder)
    package = SimpleNamespace(
        names=lambda: ("speech_pocket",), folder=lambda name: folder, clip=lambda: tones / "test" / "tone_0.wav"
    )
    monkeypatch.setitem(sys.modules, "partita_pretrained", package)


@pytest.fixture
def opened(monkeypatch):
    """The addresses that are opened in a browser with windows."""
    found = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", found.append)
    return found


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
    (tmp_path / ".demo").unlink()  # as if the run were one of `partita train music_pocket`
    assert "run that is not from this demo" in refused(*demo)


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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["report.html", "music.safetensors", "notes.txt"])
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


def page(folder):
    """Text of the report, and the number of its clips."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    return text, text.count('<article class="clip"')


@pytest.mark.slow
def test_demo_reports_speech_and_music(demo, pretrained, ok, tmp_path):
    printed, _ = ok(*demo)
    row = next(line for line in printed.splitlines() if line.startswith("| music_pocket "))
    heading = next(line for line in printed.splitlines() if line.startswith("| system "))
    column = [cell.strip() for cell in heading.split("|")].index("SI-SDR, dB ↑")
    assert -60 < float(row.split("|")[column].split()[0].replace("−", "-")) < 60
    assert "| linear codec, " in printed and "| matched noise |" in printed and "low-pass" not in printed
    text, clips = page(tmp_path)
    assert clips == 4  # one of speech, three of music
    card = text.split('<article class="clip"')[2]
    panels = [part.split("</kbd>")[1].split("<")[0] for part in card.split('<button class="pick"')[1:]]
    assert panels[:2] == ["Original", "music_pocket"] and panels[3] == "matched noise"
    assert panels[2].startswith("linear codec, ") and card.count("SI-SDR <b>") == 3
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.size == (1200, 580)  # two rows of four spectrograms
    assert (tmp_path / "speech_decoded.wav").stat().st_size == (tmp_path / "speech_original.wav").stat().st_size


@pytest.mark.slow
def test_demo_without_pretrained_package_reports_music(demo, ok, tmp_path):
    _, status = ok(*demo)
    assert status.count("partita-pretrained") == 1
    text, clips = page(tmp_path)
    assert clips == 3 and "speech_pocket" not in text and "SI-SDR" in text
    assert not list(tmp_path.glob("speech*"))
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.size == (1200, 290)


@pytest.fixture
def until_training(demo, pretrained, opened, monkeypatch, tmp_path, capsys):
    """Run the demo until the training starts; returns the number of clips in the report then."""
    counts = []

    def failing(*_, **__):
        counts.append(page(tmp_path)[1])
        raise PartitaError("no training")

    def command(*more: object) -> int:
        assert main([str(argument) for argument in (*demo[:-1], *more)]) == 2
        assert "no training" in capsys.readouterr().err
        return counts.pop()

    monkeypatch.setattr("partita.training.train", failing)
    return command


def test_speech_is_reported_before_training(until_training, opened, tmp_path):
    assert until_training("--no-open") == 1 and opened == []
    assert "speech_pocket" in page(tmp_path)[0]
    assert until_training() == 1  # starts over in its own folder
    assert opened == [(tmp_path / "report.html").as_uri()]


def test_browser_errors_do_not_end_the_demo(until_training, monkeypatch):
    def no_browser(url):
        raise webbrowser.Error("no browser")

    monkeypatch.setattr(webbrowser, "open", no_browser)
    assert until_training() == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the other systems always have windows")
def test_no_browser_is_opened_without_a_display(until_training, opened, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert until_training() == 1 and opened == []
