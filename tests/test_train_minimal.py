"""`examples/train_minimal.py` trains, saves, loads, encodes and decodes, without warnings."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "train_minimal.py"


def test_example_trains_once_and_decodes_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    audio = 0.1 * np.random.default_rng(0).standard_normal((9000, 2))
    soundfile.write(tmp_path / "data" / "noise.wav", audio, 8000)
    files = [str(tmp_path / "data" / "noise.wav"), str(tmp_path / "decoded.wav")]
    arguments = [str(SCRIPT), str(tmp_path / "data"), "--steps", "1", "--output", str(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert capsys.readouterr().out.startswith("step 0: stft ")
    monkeypatch.setattr(sys, "argv", [*arguments, "--decode", *files])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "step" not in capsys.readouterr().out
    decoded = soundfile.info(files[1])
    assert (decoded.frames, decoded.samplerate, decoded.channels) == (18_000, 16_000, 1)


def test_no_steps_are_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path), "--steps", "0"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "--steps is 0" in capsys.readouterr().err
