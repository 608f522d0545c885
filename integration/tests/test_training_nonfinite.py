"""Losses and gradients that are not finite, in every objective: reported, saved, and stopped at or skipped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from partita.cli import main
from partita.data import encode_corpus, open_dataset
from partita.model_loading import load_codec, load_model
from partita.objectives import Objective, TrainState
from partita.training import NonFiniteError, TrainerConfig, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita_bottlenecks import SoftNormConfig
from partita_core import PartitaError, override, read_json, read_tensors

FAMILIES = {
    "reconstruction": ("generator", "stft"),
    "adversarial": ("discriminator", "discriminator"),
    "consistency": ("generator", "consistency"),
    "quantization": ("generator", "latent"),
    "representation": ("generator", "rq"),
    "generation": ("generator", "latents"),
}
slow_families = [pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "reconstruction"]
in_all_families = pytest.mark.parametrize("name", ["reconstruction", *slow_families])


class NaNGradient(torch.autograd.Function):
    """The identity, with a gradient of NaN."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


@pytest.fixture
def poison(monkeypatch):
    """Make a loss term, or a gradient, NaN in a phase of given steps, for any objective."""

    def apply(kind: str, phase: str, term: str, steps: tuple[int, ...]) -> None:
        original = Objective.__call__

        def call(self, batch, state, at):
            output = original(self, batch, state, at)
            if not self.training or at != phase or state.step not in steps:
                return output
            if kind == "gradient":
                return output._replace(total=NaNGradient.apply(output.total))
            bad = output.losses[term] * torch.nan
            return output._replace(total=output.total + bad, losses=output.losses | {term: bad})

        monkeypatch.setattr(Objective, "__call__", call)

    return apply


def failed(run: Path) -> tuple[Path, dict]:
    (folder,) = (run / "failed").iterdir()
    return folder, read_json(folder / "failure.json")


def warnings_of(run: Path) -> list[str]:
    return [line["warning"] for line in read_log(run / "log.jsonl") if "warning" in line]


@pytest.mark.parametrize("kind", ["term", "gradient"])
@in_all_families
def test_run_stops_and_saves_the_failed_batch(family, poison, tones, tmp_path, name, kind):
    phase, term = FAMILIES[name]
    poison(kind, phase, term, (2,))
    with pytest.raises(NonFiniteError) as caught:
        train(family(name), data=tones, output=tmp_path / "run", progress=False)
    message, (folder, facts) = str(caught.value), failed(tmp_path / "run")
    assert "\n" not in message and message.startswith(f"step 3, {phase}: ")
    assert str(folder) in message and "trainer.on_nonfinite=skip" in message
    assert warnings_of(tmp_path / "run") == [message] and not (tmp_path / "run" / "model").exists()
    assert (folder.name, facts["step"], facts["phase"]) == ("step_00000003", 3, phase)
    (((report,),),) = (facts["processes"],)
    names = open_dataset(tones)["file_name"]
    assert report["files"] == [names[row] for row in report["rows"]] and len(report["rows"]) == 4
    assert ", ".join(list(dict.fromkeys(report["files"]))[:3]) in message
    if kind == "term":
        assert f"the loss {term} " in message and report["losses"][term] == "nan"
    else:
        assert all(isinstance(value, float) for value in report["losses"].values()) and report["gradients"]
        assert f"the gradient of {report['gradients'][0]}" in message
    batch, _ = read_tensors(folder / report["batch"])
    assert batch["index"].tolist() == report["rows"] and batch["audio"].shape[0] == 4
    assert ("samples" in batch) == (phase == "discriminator")
    state, _ = read_tensors(folder / "objective.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.parametrize("kind", ["term", "gradient"])
@in_all_families
def test_step_is_skipped_and_the_run_continues(family, poison, tones, tmp_path, name, kind, capsys):
    phase, term = FAMILIES[name]
    poison(kind, phase, term, (1,))
    config = override(family(name), ["trainer.on_nonfinite=skip"])
    model = train(config, data=tones, output=tmp_path / "run", progress=False)
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "total" in line]
    assert [line["step"] for line in lines] == [1, 3, 4] and model.exists()
    (warning,) = warnings_of(tmp_path / "run")
    assert warning.startswith(f"step 2, {phase}: ") and warning.endswith("skipped, 1 in a row")
    assert capsys.readouterr().err.count(warning) == 1
    tensors, _ = read_tensors(model / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert failed(tmp_path / "run")[1]["phase"] == phase


def state_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step_{step:08d}"
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.stem}.{name}": tensor for name, tensor in read_tensors(file)[0].items()}
    return found


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_skipped_step_changes_no_state(config, poison, tones, tmp_path, accumulation):
    """Weights, averages, optimizers, discriminators, and running statistics, which forward passes update."""
    run = config(adversarial=True, steps=3, accumulation=accumulation)
    run = replace(run, model=replace(run.model, bottleneck=SoftNormConfig()))
    poison("term", "generator", "stft", (1,))
    settings = {"data": tones, "output": tmp_path / "run", "progress": False, "checkpoint_every": 1, "keep": 9}
    train(override(run, ["trainer.on_nonfinite=skip"]), **settings)
    before, after, later = (state_of(tmp_path / "run", step) for step in (1, 2, 3))
    assert same(before, after) and not same(after, later)
    assert not torch.equal(after["objective.model.bottleneck.running_std"], torch.ones(1))


@pytest.mark.slow
def test_report_names_the_failed_micro_batch(config, tones, tmp_path, monkeypatch):
    original = Objective.__call__
    calls = []

    def call(self, batch, state, phase):
        output = original(self, batch, state, phase)
        calls.append(batch["index"].tolist())
        if calls[-1] == calls[min(1, len(calls) - 1)] and len(calls) > 1:  # the second, and its replay
            return output._replace(total=output.total * torch.nan, losses=output.losses)
        return output

    monkeypatch.setattr(Objective, "__call__", call)
    with pytest.raises(NonFiniteError, match="step 1, generator: the loss total "):
        train(config(accumulation=3), data=tones, output=tmp_path / "run", progress=False)
    folder, facts = failed(tmp_path / "run")
    ((first, second, third),) = facts["processes"]
    assert [isinstance(report["losses"]["total"], str) for report in (first, second, third)] == [False, True, False]
    assert second["rows"] == calls[1] and not first["gradients"] and second["gradients"] and not third["gradients"]
    assert {file.name for file in folder.glob("batch_*")} == {f"batch_0_{i}.safetensors" for i in range(3)}


@pytest.mark.slow
def test_too_many_consecutive_skips_stop_the_run(config, poison, tones, tmp_path):
    poison("term", "generator", "mel", tuple(range(1, 99)))
    run = override(config(steps=30), ["trainer.on_nonfinite=skip", "trainer.max_skipped=5"])
    with pytest.raises(NonFiniteError, match="6 in a row.*trainer.max_skipped=5"):
        train(run, data=tones, output=tmp_path / "run", progress=False)
    assert [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl") if "warning" in line] == [
        2,
        3,
        4,
        5,
        6,
        7,
    ]
    assert len(list((tmp_path / "run" / "failed").iterdir())) == 3  # so that a long run does not fill the disk
    assert "first 3 failures" in warnings_of(tmp_path / "run")[-1]


@pytest.mark.slow
def test_skips_that_are_not_consecutive_do_not_add_up(config, poison, tones, tmp_path):
    poison("gradient", "generator", "", (0, 2, 4, 5, 7))
    run = override(config(steps=9), ["trainer.on_nonfinite=skip", "trainer.max_skipped=2"])
    train(run, data=tones, output=tmp_path / "run", progress=False)
    ends = [text.split("skipped, ")[-1] for text in warnings_of(tmp_path / "run")]
    assert ends == [f"{i} in a row" for i in (1, 1, 1, 2, 1)]


@pytest.mark.slow
def test_stopped_run_is_resumed_with_skip(config, poison, tones, tmp_path):
    poison("term", "generator", "stft", (3,))
    settings = {"data": tones, "output": tmp_path / "run", "progress": False}
    with pytest.raises(NonFiniteError):
        train(config(), checkpoint_every=2, **settings)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_00000002"]
    train(override(config(), ["trainer.on_nonfinite=skip"]), resume=True, **settings)
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert [line["step"] for line in lines if "total" in line] == [1, 2, 3, 5, 6]


def test_failure_on_the_command_line_is_one_line_and_loads_as_model(config, tones, tmp_path, monkeypatch, capsys):
    from partita import recipes

    wild = override(config(), ["trainer.optimizers.generator.lr=1e30", "trainer.optimizers.generator.clip=none"])
    monkeypatch.setitem(recipes.RECIPES, "wild", lambda: wild)
    assert main(["train", "wild", "--data", str(tones), "--output", str(tmp_path / "run")]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("partita ")]
    assert len(error) == 1 and error[0].startswith("partita train: step 2, generator: the loss ")
    assert failed(tmp_path / "run")[1]["step"] == 2
    model = load_model(tmp_path / "run" / "failed" / "step_00000002")  # the saved state is a checkpoint
    assert model.latent_spec.dim == 4


def test_saved_batch_reproduces_the_failure(config, poison, tones, tmp_path):
    """Weights that overflow: the state and the batch suffice to reproduce it."""
    wild = override(config(), ["trainer.optimizers.generator.lr=1e30", "trainer.optimizers.generator.clip=none"])
    with pytest.raises(NonFiniteError):
        train(wild, data=tones, output=tmp_path / "run", progress=False)
    folder, facts = failed(tmp_path / "run")
    objective = wild.objective.build(model=wild.model.build())
    objective.load_state_dict(read_tensors(folder / "objective.safetensors")[0])
    batch, _ = read_tensors(folder / facts["processes"][0][0]["batch"])
    output = objective(batch, TrainState(facts["step"] - 1, facts["total_steps"]), facts["phase"])
    assert not output.total.isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quantization", "generation"])
def test_stored_latents_of_nan_are_skipped_and_listed(family, run, tones, tmp_path, name, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    encode_corpus(load_codec(run / "model"), tones, tmp_path / "corpus", progress=False)
    shard = sorted((tmp_path / "corpus" / "train").glob("*.parquet"))[0]
    table = pq.read_table(shard)
    rows = table.column("latents").to_pylist()
    rows[0] = b"\xff" * len(rows[0])  # NaN
    column = table.column_names.index("latents")
    pq.write_table(table.set_column(column, "latents", pa.array(rows, pa.binary())), shard)
    train(family(name), data=tmp_path / "corpus", output=tmp_path / "run", progress=False)
    printed = capsys.readouterr().out
    assert "1 files" in printed and f"{table.column('file_name')[0]}: " in printed and "not finite" in printed


@pytest.mark.slow
def test_nonfinite_metric_is_not_logged_and_printed_once(config, tones, tmp_path, monkeypatch, capsys):
    original = Objective.__call__

    def call(self, batch, state, phase):
        output = original(self, batch, state, phase)
        return output._replace(metrics=output.metrics | {"odd": torch.tensor(torch.inf)})

    monkeypatch.setattr(Objective, "__call__", call)
    train(config(steps=3), data=tones, output=tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert not any("metric/odd" in line for line in lines) and len(warnings_of(tmp_path / "run")) == 3
    assert capsys.readouterr().err.count("metric/odd is inf") == 1


@pytest.mark.slow
def test_guard_waits_for_the_device_once_per_phase(config, tones, tmp_path, monkeypatch):
    """Tensors that are read in a step: values for the log, and one check per phase."""
    checks = []
    original = torch.Tensor.tolist

    def tolist(self):
        checks.extend([self] if self.dtype == torch.int32 else [])
        return original(self)

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    train(config(adversarial=True, steps=3, accumulation=2), data=tones, output=tmp_path / "run", progress=False)
    assert [check.shape for check in checks] == [(2,)] * 3 * 2


def test_invalid_settings():
    with pytest.raises(PartitaError, match="max_skipped is 0"):
        TrainerConfig(max_skipped=0)
    with pytest.raises(PartitaError, match="on_nonfinite: 'ignore' .*'stop', 'skip'"):
        override(TrainerConfig(), ["on_nonfinite=ignore"])


TWO = """
import os, sys, torch
from accelerate import Accelerator, PartialState
from conftest import tiny_config
from partita.objectives import Objective
from partita.training import train
from partita_core import PartitaError, override

tones, output, *cases = sys.argv[1:]
original, sizes = Objective.__call__, set()
def call(self, batch, state, phase):
    out = original(self, batch, state, phase)
    sizes.add(PartialState().num_processes)
    if self.training and PartialState().process_index == 1 and (state.step, phase) == (1, kind):
        bad = out.total * torch.nan
        return out._replace(total=bad, losses=out.losses | {"odd": bad.detach()})
    return out
Objective.__call__ = call
Accelerator.end_training = lambda self: None  # the processes stay together for the next run
for case in cases:
    choice, kind = case.split(":")
    config = override(tiny_config(adversarial=True, steps=3), [f"trainer.on_nonfinite={choice}"])
    try:
        train(config, data=tones, output=f"{output}/{choice}", progress=False)
        end = "finished"
    except PartitaError as error:
        end = str(error)
    # One write, so that two processes do not end up in one line.
    sys.stdout.write(f"{choice}, process {os.environ['RANK']} of {max(sizes)}: {end}\\n")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_skip_or_stop_together(python, tones, tmp_path):
    """NaN in one process: both skip the step, or both stop."""
    script = tmp_path / "two.py"
    script.write_text(TWO)
    done = python(script, tones, tmp_path, "skip:discriminator", "stop:generator", processes=2)
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if ", process " in line)
    assert lines[:2] == [f"skip, process {i} of 2: finished" for i in (0, 1)]
    logged = read_log(tmp_path / "skip" / "log.jsonl")
    assert [line["step"] for line in logged if "total" in line] == [1, 3]
    ends = [line.split(": ", 1)[1] for line in lines[2:]]
    assert ends[0] == ends[1] and ends[0].startswith("step 2, generator: the loss odd ")
    for name in ("skip", "stop"):
        folder, facts = failed(tmp_path / name)
        mine, other = facts["processes"]
        assert "odd" not in mine[0]["losses"] and other[0]["losses"]["odd"] == "nan"
        assert all(file in ends[0] for file in dict.fromkeys(other[0]["files"])) or name == "skip"
        assert {path.name for path in folder.glob("batch_*")} == {"batch_0_0.safetensors", "batch_1_0.safetensors"}
        assert read_tensors(folder / "batch_1_0.safetensors")[0]["index"].tolist() == other[0]["rows"]
