"""Names and texts of foreign files: control characters, formulas, invalid encodings and lengths."""

import csv
import io
import os
import sys

import pytest
import torch
from partita.cli._terminal import clean_terminal
from partita.data import reported_readers
from partita.evaluation import evaluate
from partita.report.curves import curves_of
from partita.training.logs import Log, read_log
from partita_core import Autoencoder, AutoencoderConfig, ChannelLayout, PartitaError

ESCAPE = "\x1b[2J\x1b]0;owned\x07"


@pytest.fixture
def model(tmp_path):
    AutoencoderConfig.example().build().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


# ------------------------------------------------------------------ the terminal


def test_control_characters_are_escaped_except_of_progress_bars(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with clean_terminal():
        print(f"naïve {ESCAPE}\u202e.wav", end="\r\n\t\x1b[A")
        print("\x9b31m\udcff", file=sys.stderr)
    assert out.getvalue() == "naïve \\x1b[2J\\x1b]0;owned\\x07\\u202e.wav\r\n\t\x1b[A"
    assert err.getvalue() == "\\x9b31m\\udcff\n"
    assert sys.stdout is out and sys.stderr is err


def test_characters_missing_in_terminal_encoding_are_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with clean_terminal():
        print("a × b")
        sys.stdout.flush()
    assert raw.getvalue() == b"a \\xd7 b\n"


@pytest.mark.parametrize(
    "name", [f"{ESCAPE}.wav", os.fsdecode(b"\xff.wav"), "a\nb.wav"], ids=["escape", "bytes", "line"]
)
def test_hostile_file_name_in_error_is_escaped(model, refused, tmp_path, name):
    (tmp_path / name).write_text("no audio")
    line = refused("encode", model, tmp_path / name, "-o", tmp_path / "z.safetensors")
    assert line.strip().isprintable() and ".wav" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "MODEL", "LONG", "-o", "z.safetensors"),
        ("encode", "LONG", "a.wav", "-o", "z.safetensors"),
        ("decode", "MODEL", "LONG", "-o", "a.wav"),
        ("reconstruct", "MODEL", "LONG", "-o", "a.wav"),
        ("evaluate", "MODEL", "--data", "LONG"),
        ("evaluate", "LONG", "--data", "."),
        ("report", "MODEL", "--data", ".", "-o", "LONG.html"),
        ("train", "genae_tiny", "--data", "LONG", "--output", "run"),
        ("train", "genae_tiny", "--data", ".", "--output", "LONG"),
        ("info", "LONG"),
        ("probe", "MODEL", "--data", "LONG"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_impossible_file_names_raise(model, refused, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"LONG": "n" * 300, "LONG.html": "n" * 300 + ".html", "MODEL": model}
    assert "n" * 40 in refused(*(words.get(word, word) for word in arguments))


def test_hostile_model_name_raises():
    with pytest.raises(PartitaError, match="no model folder"):
        Autoencoder.from_pretrained("n" * 300)


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "a", "a=b", "\x1b[1m", "x|y"])
def test_names_are_not_formulas_or_commands(model, name, tmp_path):
    codec = Autoencoder.from_pretrained(model)
    clips = [(name, torch.rand(1, 4000) - 0.5, ChannelLayout.MONO)]
    found = evaluate({name: codec}, clips, metrics=["si_sdr"], references=False)
    found.to_csv(tmp_path / "t.csv")
    row = next(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"))))
    for cell in (row["clip"], row["system"]):
        assert cell.isprintable() and cell[0] not in "=+-@" and cell.endswith(name[-3:])
    assert float(row["si_sdr"]) == found.scores[name]["si_sdr"][0]
    assert "\x1b" not in found.to_markdown()


# ------------------------------------------------------------------ logs


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "seconds": "long"}',
        '{"step": 1, "total": 1' + "0" * 400 + "}",
        '{"step": 1' + "0" * 400 + "}",
        '{"step": -1, "total": 1}',
        '{"step": 1, "total": NaN}',
        '{"step": 1, "total": 1e999}',
        '{"step": 1, "step": 2}',
        '{"total": 1}',
        "[" * 5000,
        "3",
    ],
    ids=range(10),
)
def test_invalid_log_raises(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{line}\n{{"step": 2, "total": 1.0}}\n')
    with pytest.raises(PartitaError, match="line 1 is"):
        read_log(path)


def test_log_round_trip(tmp_path):
    log = Log(tmp_path / "log.jsonl", step=0)
    log.write(1, total=float("nan"), other=2.0, seconds=0.5)
    log.write(2, total=1.0, other=3.0, seconds=1, warning="a\nb")
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["total"] for row in rows] == [None, 1.0]
    assert curves_of(rows)["other"].tolist() == [[1.0, 2.0], [2.0, 3.0]]


# ------------------------------------------------------------------ readers


KILLED = """
import multiprocessing, os, signal, sys
from dataclasses import replace
from conftest import tiny_config
from partita.data import build_loader, open_dataset, reported_readers
from partita_core import PartitaError

config = tiny_config()
dataset, data = open_dataset(sys.argv[1], split="train"), replace(config.data, num_workers=1)
try:
    with reported_readers():
        batches = iter(build_loader(dataset, data, audio_spec=config.model.audio, crop_multiple=80, seed=0))
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        for _ in range(1000):
            next(batches)
except PartitaError as error:
    print(error, flush=True)
    os._exit(0)  # torch raises again at exit
"""


@pytest.mark.slow
def test_killed_reader_raises(tones, python):
    done = python("-c", KILLED, tones)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "killed" in line and "data.num_workers" in line


def test_other_reader_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a defect") as caught, reported_readers():
        raise RuntimeError("a defect")
    assert not isinstance(caught.value, PartitaError)
