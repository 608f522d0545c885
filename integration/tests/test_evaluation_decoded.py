"""Folders of decoded files beside models."""

import json
import shutil

import pytest
import torch
from partita.data import resample, write_audio
from partita.evaluation import DecodedFolder, evaluate
from partita.evaluation.alignment import delay
from partita_core import PartitaError

RATE = 8000


def noise(channels=1, samples=4000, seed=0):
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def folder_of(path, files, rate=RATE):
    for name, audio in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        write_audio(path / name, audio, rate)
    return path


@pytest.mark.parametrize("late", [0, 1, 123, 400, -1, -300])
def test_delay_is_found_and_compensated(tmp_path, late):
    audio = noise(2)
    moved = torch.nn.functional.pad(audio, (late, 0)) if late > 0 else audio[:, -late:]
    assert delay(moved, audio, limit=400) == late
    found = DecodedFolder(folder_of(tmp_path, {"a/x.wav": moved}))("a/x.flac", audio, RATE)
    inside = slice(max(0, -late), None)  # what the file does not have is silent
    torch.testing.assert_close(found[:, inside], audio[:, inside])
    assert found.shape == audio.shape and not found[:, : inside.start].any()
    unmoved = DecodedFolder(tmp_path, align=False)("a/x.wav", audio, RATE)
    assert unmoved.shape == audio.shape and (late == 0) == torch.equal(unmoved, audio)


def test_delay_is_limited_and_zero_without_correlation():
    audio = noise()
    late = torch.nn.functional.pad(audio, (401, 0))
    assert abs(delay(late, audio, limit=400)) <= 400 and delay(late, audio, limit=401) == 401
    assert delay(torch.zeros(1, 100), audio, limit=400) == 0
    assert delay(noise(samples=9000), noise(samples=500), limit=400) == 0  # a clip that was truncated


def test_files_are_fitted_to_the_clip(tmp_path):
    audio = noise(2, 3000)
    files = {
        "short.wav": audio[:, :2500],
        "long.flac": torch.nn.functional.pad(audio, (0, 700)),
        "mono.ogg": audio.mean(0, keepdim=True),
    }
    folder = DecodedFolder(folder_of(tmp_path, files))
    assert folder.sample_rate == RATE
    short = folder("short.wav", audio, RATE)
    assert torch.equal(short[:, :2500], audio[:, :2500]) and not short[:, 2500:].any()
    torch.testing.assert_close(folder("long.mp3", audio, RATE), audio, atol=1e-6, rtol=0)
    mono = folder("mono", audio, RATE)
    assert mono.shape == audio.shape and torch.equal(mono[0], mono[1])
    assert folder("short.wav", audio[:1], RATE).shape == (1, 3000)
    high = resample(audio, RATE, 16_000)
    torch.testing.assert_close(folder("short.wav", high, 16_000)[:, :4800], high[:, :4800], atol=2e-3, rtol=0)


def test_missing_and_ambiguous_files(tmp_path):
    folder = DecodedFolder(folder_of(tmp_path / "one", {"a/0.wav": noise(), "a/v1.5.wav": noise()}))
    folder.check(["a/0.flac", "a/v1.5"])
    with pytest.raises(PartitaError, match=r"one: has no file for 2 of 3 clips, first 0\.wav"):
        folder.check(["0.wav", "a/0.wav", "a/1.wav"])
    with pytest.raises(PartitaError, match="1 of 1 clips, first b"):
        folder("b", noise(), RATE)
    write_audio(tmp_path / "one/a/0.flac", noise(), RATE)
    with pytest.raises(PartitaError, match=r"a/0\.flac and a/0\.wav"):
        DecodedFolder(tmp_path / "one")
    (tmp_path / "none").mkdir()
    with pytest.raises(PartitaError, match="no audio"):
        DecodedFolder(tmp_path / "none")


def test_decoded_files_stand_in_the_table(tmp_path):
    clips = [(f"{i}.wav", noise(seed=i), "mono") for i in range(3)]
    copies = folder_of(tmp_path / "copies", {name: audio for name, audio, _ in clips})
    noisy = folder_of(tmp_path / "noisy", {name: audio + noise(seed=9) for name, audio, _ in clips})
    decoded = {"copies": DecodedFolder(copies), "noisy": DecodedFolder(noisy)}
    found = evaluate({}, clips, ["si_sdr"], sample_rate=RATE, decoded=decoded)
    assert [system.name for system in found.systems] == ["copies", "noisy", "silence", "matched noise"]
    assert found.means["copies"]["si_sdr"].mean == 100
    assert found.means["noisy"]["si_sdr"].mean == pytest.approx(0, abs=0.5)
    assert found.best(found.metrics[0]) == "copies"
    pairs = {(each.system, each.baseline) for each in found.differences}
    assert ("copies", "noisy") in pairs and ("noisy", "matched noise") in pairs
    with pytest.raises(PartitaError, match="'silence'"):
        evaluate({}, clips, sample_rate=RATE, decoded={"silence": decoded["copies"]})


def test_evaluate_and_report_take_folders(run, ok, refused, tones, tmp_path):
    shutil.copytree(tones / "test", tmp_path / "opus" / "test")
    command = ("evaluate", run / "model", f"opus={tmp_path / 'opus'}", "--data", tones)
    out, _ = ok(*command, "--json", tmp_path / "a.json")
    (row,) = (line for line in out.splitlines() if line.startswith("| opus |"))
    assert "**100.0 [100.0, 100.0]**" in row and row.endswith("| – | – | – | – |")
    assert "Files of opus are shifted" in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert [system["name"] for system in found["systems"]][:2] == ["run/model", "opus"]
    alone, _ = ok("evaluate", tmp_path / "opus", "--data", tones, "--no-align", "--metrics", "si_sdr")
    assert "| opus | 100.0" in alone and "shifted" not in alone
    page = tmp_path / "r.html"
    ok("report", *command[1:], "-o", page, "--clips", 1, "--metrics", "si_sdr")
    assert page.read_text(encoding="utf-8").count("<audio") == 3
    next((tmp_path / "opus" / "test").iterdir()).unlink()
    line = refused(*command)
    assert "opus: has no file for 1 of 3 clips, first test/tone_" in line
