"""Runs that are interrupted, extended, or share their folder with other files."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from partita.cli import main
from partita.objectives import TrainState
from partita.training import Interrupted, RunFolder, train
from partita.training.checkpoints import checkpoints, last_checkpoint
from partita.training.interruption import Signals
from partita.training.logs import read_log
from partita.training.stepper import Stepper
from partita.training.time_budget import TimeBudget
from partita_core import PartitaError, override, read_json, read_tensors

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


def rates(run: Path) -> dict[int, float]:
    return {line["step"]: line["lr/generator"] for line in read_log(run / "log.jsonl") if "total" in line}


def same_end(one: Path, other: Path) -> bool:
    ends = [last_checkpoint(RunFolder(run)) for run in (one, other)]
    assert ends[0] is not None and ends[1] is not None and ends[0].name == ends[1].name
    found = [read_tensors(end / "objective.safetensors")[0] for end in ends]
    return all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def texts(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------ signals


@pytest.fixture
def signaled(monkeypatch):
    """Send this process a signal within a step."""

    def sends(number: int, step: int) -> None:
        original = Stepper.step

        def interrupted(self, reader, state):
            if state.step + 1 == step:
                signal.raise_signal(number)
            return original(self, reader, state)

        monkeypatch.setattr(Stepper, "step", interrupted)

    yield sends
    monkeypatch.undo()


@pytest.mark.slow
@posix
@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_ends_the_run_after_a_checkpoint(config, tones, run, tmp_path, signaled, monkeypatch, name, code):
    number = getattr(signal, name)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with monkeypatch.context():
        signaled(number, 2)
        with pytest.raises(Interrupted) as end:
            train(config(), data=tones, output=tmp_path / "cut", progress=False)
    assert end.value.code == code and isinstance(end.value, KeyboardInterrupt)
    assert all(part in end.value.text for part in ("step 2 of 6", str(tmp_path / "cut"), "step_00000002", "--resume"))
    assert "\n" not in end.value.text
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    monkeypatch.undo()
    train(config(), data=tones, output=tmp_path / "cut", resume=True, progress=False)
    assert same_end(run, tmp_path / "cut")


@pytest.mark.slow
@posix
def test_sigusr1_writes_a_checkpoint_and_the_run_continues(config, tones, run, tmp_path, signaled):
    signaled(signal.SIGUSR1, 2)
    train(config(), data=tones, output=tmp_path / "run", keep=9, progress=False)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_00000002", "step_00000006"]
    assert same_end(run, tmp_path / "run")


@pytest.mark.slow
@posix
def test_signal_on_the_command_line_is_one_line_and_its_exit_code(run, tones, tmp_path, signaled, capsys):
    signaled(signal.SIGTERM, 2)
    small = ["--recipe", "vq_tiny", "--steps", 3, "data.batch_size=4", "data.crop_seconds=0.2", "data.num_workers=0"]
    command = ["quantize", run / "model", "--data", tones, "--output", tmp_path / "run", *small]
    assert main([str(word) for word in command]) == 143
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("partita ")]
    assert len(errors) == 1 and "step_00000002" in errors[0] and "--resume" in errors[0]


@posix
def test_signals_are_collected_once_and_ignored_ones_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert signals.take() == (0, False)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # repeated at once, as torchrun does
            signal.raise_signal(signal.SIGUSR1)
            assert signals.take() == (signal.SIGTERM, True) and signals.take() == (0, False)
    finally:
        signal.signal(signal.SIGINT, before)
    with Signals() as signals, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signals._first[signal.SIGINT] -= 60  # as if a minute had passed
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_checkpoints_are_written_by_time(config, tones, tmp_path):
    settings = {"data": tones, "progress": False, "keep": 9}
    train(config(steps=3), output=tmp_path / "often", checkpoint_minutes=1e-9, **settings)
    train(config(steps=3), output=tmp_path / "never", **settings)
    found = [[path.name[-1] for path in checkpoints(tmp_path / name / "checkpoints")] for name in ("often", "never")]
    assert found == [["1", "2", "3"], ["3"]] and same_end(tmp_path / "often", tmp_path / "never")
    with pytest.raises(PartitaError, match="checkpoint_minutes is 0"):
        train(config(), output=tmp_path / "wrong", checkpoint_minutes=0.0, data=tones, progress=False)
    assert not (tmp_path / "wrong").exists()


SIGNALED = """
import os, signal, sys
from conftest import tiny_config
from partita.training import Interrupted, stepper, train
from partita_core import override

def main():
    data, output, rank = *sys.argv[1:], int(os.environ.get("RANK", 0))
    original = stepper.Stepper.step
    def interrupted(self, reader, state):
        if rank == 1 and state.step + 1 == 2:
            signal.raise_signal(signal.SIGTERM)
        return original(self, reader, state)
    stepper.Stepper.step = interrupted
    try:
        train(override(tiny_config(steps=4), ["data.batch_size=2"]), data=data, output=output, progress=False)
    except Interrupted as end:
        sys.stdout.write(f"process {rank}: {end.code} {'--resume' in end.text}\\n")

main()
"""


@posix
@pytest.mark.endurance
def test_signal_to_one_of_two_processes_ends_both_at_the_same_step(python, tones, tmp_path):
    (tmp_path / "signaled.py").write_text(SIGNALED)
    done = python(tmp_path / "signaled.py", tones, tmp_path / "run", processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("process"))
    assert lines == ["process 0: 143 True", "process 1: 143 False"]
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_00000002"]


@posix
@pytest.mark.endurance
@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_signal_to_the_process_group_of_a_run_with_workers(run, tones, tmp_path, name, code):
    small = ["data.batch_size=4", "data.crop_seconds=0.2", "data.num_workers=2", "trainer.log_every=1"]
    command = [sys.executable, "-m", "partita", "quantize", run / "model", "--data", tones, "--recipe", "vq_tiny"]
    command += ["--output", tmp_path / "run", "--steps", 100_000, *small]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [str(word) for word in command], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "run" / "log.jsonl"
    while max((line["step"] for line in read_log(log)), default=0) < 3 and started.poll() is None:
        time.sleep(0.05)
    os.killpg(started.pid, getattr(signal, name))
    _, errors = started.communicate(timeout=120)
    assert started.returncode == code, errors[-3000:]
    assert "Traceback" not in errors and errors.count("partita quantize: ") == 1
    (checkpoint,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert int(checkpoint.name.split("_")[1]) >= 3


# ------------------------------------------------------------------ extension


def test_progress_continues_after_extension():
    state = TrainState(30, 100)
    state.extend(1000)
    assert state.progress == pytest.approx(0.3)
    state.step = 515
    assert state.progress == pytest.approx(0.65)
    state.step = 1000
    state.extend(2000)
    for state.step in (1000, 1500, 2000):
        assert state.progress == 1.0
    assert TrainState(7, 13).progress == 7 / 13  # exactly


@pytest.mark.slow
def test_extended_run_continues_at_the_final_learning_rate(config, tones, tmp_path, capsys):
    """A cosine from 1e-2 to a twentieth of it."""
    settings = {"data": tones, "output": tmp_path / "run", "progress": False}
    train(config(steps=3), **settings)
    short = rates(tmp_path / "run")
    capsys.readouterr()
    train(config(steps=6), resume=True, **settings)
    found = rates(tmp_path / "run")
    assert [found[step] for step in (1, 2, 3)] == [short[step] for step in (1, 2, 3)]
    assert [found[step] for step in (4, 5, 6)] == pytest.approx([5e-4] * 3)
    printed = capsys.readouterr().err
    half = 1e-2 * (0.05 + 0.95 / 2)
    assert "generator 0.0005" in printed and f"{half:.3g}" in printed and printed.count("\n") == 1


@pytest.mark.slow
def test_run_extended_before_its_end_is_resumed_exactly(config, tones, tmp_path, capsys):
    """Extended from six to twelve steps at the third: the last nine are the second half of the schedule."""
    settings = {"data": tones, "progress": False, "checkpoint_every": 3, "keep": 9}
    train(config(steps=6), output=tmp_path / "cut", **settings)
    shutil.rmtree(checkpoints(tmp_path / "cut" / "checkpoints")[-1])
    shutil.copytree(tmp_path / "cut", tmp_path / "whole")
    train(config(steps=12), output=tmp_path / "whole", resume=True, **settings)
    train(config(steps=12), output=tmp_path / "cut", resume=True, **settings)
    shutil.rmtree(checkpoints(tmp_path / "cut" / "checkpoints")[-1])
    capsys.readouterr()
    train(config(steps=12), output=tmp_path / "cut", resume=True, **settings)
    assert capsys.readouterr().err == ""
    found = rates(tmp_path / "cut")
    assert same_end(tmp_path / "whole", tmp_path / "cut") and found == rates(tmp_path / "whole")
    falling = [found[step] for step in range(1, 13)]
    assert falling == sorted(falling, reverse=True) and falling[3] == pytest.approx(1e-2 * (0.05 + 0.95 / 2))
    state = read_json(checkpoints(tmp_path / "cut" / "checkpoints")[-1] / "state.json")
    assert state["since"] == [3, 0.5]


def test_resumed_run_with_time_limit_starts_from_its_last_estimate():
    budget = TimeBudget(60.0, 2.0, first_step=500, steps=1_000_000)
    assert budget.total_steps(TrainState(501, 1000)) == 1000
    assert budget.total_steps(TrainState(505, 500)) == 505
    assert TimeBudget(0.0, None, first_step=500, steps=2000).total_steps(TrainState(501, 1000)) == 2000


# ------------------------------------------------------------------ folders


def test_folder_with_other_files_is_rejected_and_unchanged(config, tones, tmp_path):
    for name in ("model/weights", "checkpoints/step_00000100/notes", ".model.backup/weights", "samples/mine.wav"):
        for folder in (tmp_path / "all", tmp_path / name.replace("/", "_")):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text("mine")
    before = texts(tmp_path)
    for folder in list(tmp_path.iterdir()):
        for resume in (False, True):
            with pytest.raises(PartitaError):
                train(config(steps=1), data=tones, output=folder, resume=resume, progress=False)
    assert texts(tmp_path) == before


@pytest.mark.slow
def test_run_deletes_only_its_own_checkpoints(config, tones, tmp_path):
    settings = {"data": tones, "output": tmp_path, "progress": False, "checkpoint_every": 1, "keep": 1}
    train(config(steps=2), **settings)
    for name in ("step_00000001", "step_99999999"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "notes").write_text("mine")
    (tmp_path / "model" / "notes").write_text("mine")
    train(config(steps=4), resume=True, **settings)
    names = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert names == ["step_00000001", "step_00000004", "step_99999999"]
    assert all((tmp_path / "checkpoints" / name / "notes").read_text() == "mine" for name in (names[0], names[2]))
    assert (tmp_path / "model" / "notes").read_text() == "mine"
    RunFolder(tmp_path).discard()
    assert texts(tmp_path) == {f"{name}/notes": "mine" for name in (*(f"checkpoints/{n}" for n in names[::2]), "model")}


@posix
def test_run_has_one_writer(config, tones, run, tmp_path):
    settings = {"data": tones, "output": tmp_path / "run", "progress": False}
    for resume in (False, True):
        with RunFolder(tmp_path / "run").locked():
            with pytest.raises(PartitaError, match="run .*another process"):
                train(config(), resume=resume, **settings)
            assert [path.name for path in (tmp_path / "run").iterdir()] == [".partita"]
    shutil.copytree(run, tmp_path / "copy")
    before = (tmp_path / "copy" / "log.jsonl").read_bytes()
    with RunFolder(tmp_path / "copy").locked(), pytest.raises(PartitaError, match="another process"):
        train(config(steps=7), data=tones, output=tmp_path / "copy", resume=True, progress=False)
    assert (tmp_path / "copy" / "log.jsonl").read_bytes() == before
    train(config(steps=1), **settings)  # the lock file of a killed start is not a run


@pytest.mark.slow
def test_resumed_run_checks_contents_of_files(config, tones, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tones, data)
    settings = {"output": tmp_path / "run", "progress": False}
    train(config(steps=1), data=data, **settings)
    for file in data.rglob("*.wav"):
        os.utime(file, (1, 1))  # modification times do not count
    train(config(steps=2), data=data, resume=True, **settings)
    audio = bytearray((data / "train" / "tone_3.wav").read_bytes())
    audio[len(audio) // 2] ^= 1
    (data / "train" / "tone_3.wav").write_bytes(audio)
    with pytest.raises(PartitaError, match=r"train/tone_3\.wav"):
        train(config(steps=3), data=data, resume=True, **settings)
    with pytest.raises(PartitaError, match="data.batch_size was 4, now 2"):
        train(override(config(steps=3), ["data.batch_size=2"]), data=data, resume=True, **settings)


# ------------------------------------------------------------------ outputs of commands


@posix
def test_command_outputs_may_be_devices_and_links_but_not_the_input(run, tones, tmp_path, ok, refused):
    song = shutil.copy(tones / "test" / "tone_0.wav", tmp_path / "song.wav")
    (tmp_path / "far").mkdir()
    (tmp_path / "link.wav").symlink_to(tmp_path / "far" / "song_again.wav")
    (tmp_path / "null").symlink_to(os.devnull)
    ok("reconstruct", run / "model", song, "-o", tmp_path / "link.wav")
    assert (tmp_path / "link.wav").is_symlink() and (tmp_path / "far" / "song_again.wav").stat().st_size > 1000
    ok("evaluate", run / "model", "--data", tones, "--json", tmp_path / "null", "--metrics", "lsd")
    assert (tmp_path / "null").is_symlink() and not Path(os.devnull).is_file()
    before = song.read_bytes()
    assert "song.wav" in refused("reconstruct", run / "model", song, "-o", song)
    assert song.read_bytes() == before
