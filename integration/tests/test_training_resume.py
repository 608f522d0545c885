"""A run that is killed and resumed ends bit for bit like an uninterrupted run."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from partita.training import RunFolder, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import Log, read_log
from partita_core import PartitaError, override, read_json

FAMILIES = ("reconstruction", "adversarial", "consistency", "quantization", "representation", "generation")

# Values of the log that depend on time.
TIMES = ("seconds", "cpu_seconds", "waited")


@pytest.fixture(scope="module")
def labeled(tones, tmp_path_factory) -> Path:
    """The tones with labels, for supervision by text."""
    folder = shutil.copytree(tones, tmp_path_factory.mktemp("labeled") / "tones")
    for split in folder.iterdir():
        files = sorted(split.glob("*.wav"))
        lines = ["file_name,label", *(f"{file.name},{i}" for i, file in enumerate(files))]
        (split / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def interrupted(python, run, llm, labeled, tmp_path):
    """Train a family with and without kills; returns the folders of both runs and statistics of the kills."""

    def trained(name: str, *, steps: int, kills: int, every: int, keep: int = 2, **job) -> tuple[Path, Path, dict]:
        settings = {"codec": os.fspath(run / "model"), "llm": os.fspath(llm), "steps": steps}
        job = {"seed": 1, "data": os.fspath(labeled), **job}
        job |= {"family": name, "settings": settings, "output": os.fspath(tmp_path)}
        (tmp_path / "job.json").write_text(json.dumps(job | {"every": every, "kills": kills, "keep": keep}))
        done = python(Path(__file__).with_name("killed_runs.py"), tmp_path / "job.json", timeout=3000)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        return tmp_path / "whole", tmp_path / "killed", read_json(tmp_path / "kills.json")

    return trained


def lines(run: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(run / "log.jsonl")]


def cut_short(checkpoint: Path) -> None:
    """Turn a checkpoint into what a kill leaves while it is written."""
    writer = checkpoint.with_name(f".{checkpoint.name}.partita") / "new"
    writer.mkdir(parents=True)
    checkpoint.rename(writer / checkpoint.name)


def check(whole: Path, killed: Path, *, keep: int = 2) -> None:
    """Compare weights, averages, optimizers, discriminators, balancer, schedules, data and evaluations."""
    ends = [checkpoints(run / "checkpoints") for run in (whole, killed)]
    assert [path.name for path in ends[0]] == [path.name for path in ends[1]] and len(ends[1]) == keep
    assert {path.name for path in (killed / "checkpoints").iterdir()} == {path.name for path in ends[1]}
    for one, other in zip(*ends):
        assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
        for file in one.glob("*.safetensors"):
            assert file.read_bytes() == (other / file.name).read_bytes(), file
        for file in one.glob("optimizer_*.json"):
            assert read_json(file) == read_json(other / file.name)
        states = [read_json(path / "state.json") for path in (one, other)]
        for state in states:
            del state["metadata"]["seconds"], state["metadata"]["cpu_seconds"]
        assert states[0] == states[1]
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (whole, killed)]
    assert weights[0] == weights[1]
    assert lines(whole) == lines(killed)


@pytest.mark.slow
def test_run_with_two_kills(interrupted):
    whole, killed, met = interrupted("staged", steps=10, kills=2, every=2)
    assert met["kills"] >= 1
    check(whole, killed)
    stages = [(line["step"], line["stage"]) for line in lines(killed) if "stage" in line]
    assert stages == [(0, "reconstruction"), (3, "discriminator warmup"), (6, "adversarial")]


@pytest.mark.endurance
@pytest.mark.parametrize("name", FAMILIES)
def test_run_with_twenty_kills(interrupted, name):
    whole, killed, met = interrupted(name, steps=60, kills=20, every=2)
    print(f"{name}: {met['kills']} kills, {met['writing']} while a checkpoint was written, {met['lost']} steps again")
    assert met["kills"] == 20
    check(whole, killed)


@pytest.mark.slow
def test_run_killed_before_its_first_checkpoint_restarts(config, tones, tmp_path):
    for name in ("whole", "cut"):
        train(config(steps=3), data=tones, output=tmp_path / name, progress=False)
    (checkpoint,) = checkpoints(tmp_path / "cut" / "checkpoints")
    cut_short(checkpoint)  # as if killed while it was written
    (tmp_path / "cut" / "model" / "model.safetensors").unlink()
    train(config(steps=3), data=tones, output=tmp_path / "cut", resume=True, progress=False)
    check(tmp_path / "whole", tmp_path / "cut", keep=1)


def test_tidy_removes_only_unfinished_files(tmp_path):
    kept = (
        "checkpoints/step_00000002",
        "checkpoints/.step_old",
        "model",
        "samples",
        ".model.backup",
        ".config.json.x2",
    )
    left = ("checkpoints/.step_00000004.partita", ".model.partita", ".config.json.partita", ".log.jsonl.partita.1")
    for name in (*kept, *left):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    RunFolder(tmp_path).tidy()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("file")} == {
        f"{name}/file" for name in kept
    }
    RunFolder(tmp_path / "none").tidy()


def test_resume_without_a_folder_starts_a_run(config, tones, tmp_path):
    train(config(steps=2), data=tones, output=tmp_path / "run", resume=True, progress=False)
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) == 1


@pytest.mark.slow
def test_resuming_a_finished_run_writes_the_same_card(config, tones, tmp_path):
    cards = []
    for resume in (False, True):
        train(config(steps=2), data=tones, output=tmp_path, resume=resume, progress=False)
        cards.append(re.sub(r"in \d+ minutes", "", (tmp_path / "model" / "README.md").read_text()))
    assert cards[0] == cards[1] and "model-index" in cards[1] and "| log-mel L1 ↓ |" in cards[1]


@pytest.mark.slow
def test_resume_requires_the_same_files_and_no_fewer_steps(config, tones, tmp_path):
    train(config(steps=3), data=tones, output=tmp_path / "run", progress=False)
    shutil.copytree(tones, tmp_path / "more")
    shutil.copy(tones / "train" / "tone_0.wav", tmp_path / "more" / "train" / "another.wav")
    with pytest.raises(PartitaError, match="other files"):
        train(config(steps=4), data=tmp_path / "more", output=tmp_path / "run", resume=True, progress=False)
    with pytest.raises(PartitaError, match="trainer.steps was 3, now 2"):
        train(config(steps=2), data=tones, output=tmp_path / "run", resume=True, progress=False)
    shutil.copytree(tones, tmp_path / "moved")
    train(config(steps=4), data=tmp_path / "moved", output=tmp_path / "run", resume=True, progress=False)


@pytest.mark.slow
def test_skipped_files_are_listed_after_a_kill(config, tones, tmp_path, capsys):
    shutil.copytree(tones, tmp_path / "data")
    for i in range(4):
        (tmp_path / "data" / "train" / f"broken_{i}.wav").write_bytes(b"no audio")
    settings = {"data": tmp_path / "data", "progress": False, "checkpoint_every": 2}
    reports = {}
    for name in ("whole", "cut"):
        train(config(steps=6), output=tmp_path / name, **settings)
        last = checkpoints(tmp_path / name / "checkpoints")[-1]
        if name == "cut":
            cut_short(last)
            capsys.readouterr()
            train(config(steps=6), output=tmp_path / name, resume=True, **settings)
        reports[name] = capsys.readouterr().out.replace(str(tmp_path / name), "")
        (line,) = [line for line in read_log(tmp_path / name / "log.jsonl")[-1:] if "broken" in line]
        reports[name] = (reports[name], line["broken"])
    assert "4 files" in reports["whole"][0] and reports["whole"] == reports["cut"]


@pytest.mark.parametrize("name", ["samples", "log.jsonl"])
def test_path_that_cannot_be_written_is_named(config, tones, tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).mkdir() if name == "log.jsonl" else (run / name).touch()
    with pytest.raises(PartitaError, match=f"{name}"):
        train(config(steps=1), data=tones, output=run, progress=False)


def test_checkpoint_folder_name_pattern(tmp_path):
    names = [
        "step_00000010",
        "step_99999999",
        "step_100000000",
        "step_old",
        "step_",
        "step_2",
        "step_00000002x",
        "steps",
    ]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "step_00000012").touch()
    assert [path.name for path in checkpoints(tmp_path)] == names[:3]  # in numerical order
    (tmp_path / names[2]).rmdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000010", "step_99999999"]


def test_truncated_last_line_of_a_log_is_ignored(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n{"step": 2, "tot')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n\xff\x00')
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1}]
    assert read_log(tmp_path / "none") == []


def test_kill_while_opening_a_log_keeps_its_lines(tmp_path, monkeypatch):
    def killed(file, *args, **kwargs):
        file.write_bytes(b"")
        raise KeyboardInterrupt

    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        Log(path, step=1)
    assert read_log(path) == [{"step": 1}, {"step": 2}]


@pytest.mark.slow
def test_evaluation_prevented_by_a_kill_is_repeated(config, tones, tmp_path):
    """Killed between the checkpoint and the evaluation of step 4, a run evaluates each step once."""
    run = override(config(steps=6), ["trainer.evaluate_every=2"])
    settings = {"data": tones, "progress": False, "checkpoint_every": 2, "keep": 9}
    for name in ("whole", "cut"):
        train(run, output=tmp_path / name, **settings)
    log = tmp_path / "cut" / "log.jsonl"
    kept = [line for line in log.read_text().splitlines() if not ('"step": 4' in line and "validation/" in line)]
    log.write_text("\n".join(kept) + "\n")
    last = checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    cut_short(last)
    train(run, output=tmp_path / "cut", resume=True, **settings)
    assert lines(tmp_path / "whole") == lines(tmp_path / "cut")


FULL = """
import resource, sys
from pathlib import Path
from conftest import tiny_config
from partita.training import train
from partita_core import PartitaError

data, output = sys.argv[1:]
largest = max(file.stat().st_size for file in Path(output).glob("checkpoints/*/*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, resource.RLIM_INFINITY))
try:
    train(tiny_config(steps=4), data=data, output=output, resume=True, checkpoint_every=1, progress=False)
except PartitaError as error:
    print("error:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
@pytest.mark.slow
def test_full_disk_leaves_the_last_checkpoint(config, python, tones, tmp_path):
    """Simulated by a limit on the size of files."""
    settings = {"data": tones, "progress": False, "checkpoint_every": 1}
    for name in ("whole", "full"):
        train(config(steps=4), output=tmp_path / name, **settings)
    run = tmp_path / "full"
    shutil.rmtree(checkpoints(run / "checkpoints")[-1])  # continues from step 3
    before = {file: file.read_bytes() for file in (run / "checkpoints").glob("*/*")}
    script = tmp_path / "full.py"
    script.write_text(FULL)
    done = python(script, tones, run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("error: ") and done.stdout.count("\n") == 1, done.stdout
    assert {file: file.read_bytes() for file in (run / "checkpoints").rglob("*") if file.is_file()} == before
    train(config(steps=4), output=run, resume=True, **settings)
    check(tmp_path / "whole", run)
