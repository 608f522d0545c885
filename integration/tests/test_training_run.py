import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from partita.objectives import TrainState
from partita.training import EMA, train
from partita.training.checkpoints import checkpoints
from partita.training.logs import Progress, read_log
from partita.training.time_budget import TimeBudget
from partita_core import (
    AudioSpec,
    Autoencoder,
    ChannelLayout,
    PartitaError,
    override,
    read_json,
    read_tensors,
    write_tensors,
)
from torch import nn


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {f"{file.stem}.{name}": tensor for name, tensor in read_tensors(file)[0].items()}
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("adversarial, accumulation", [(False, 1), pytest.param(True, 2, marks=pytest.mark.slow)])
def test_resumed_run_equals_uninterrupted_run(config, tones, tmp_path, adversarial, accumulation):
    whole = config(adversarial=adversarial, accumulation=accumulation, steps=4)
    # Constant rates, because a cosine over two steps differs from one over four.
    whole = override(whole, [f"trainer.optimizers.{phase}.schedule=constant" for phase in whole.trainer.optimizers])
    half = override(whole, ["trainer.steps=2"])
    train(whole, data=tones, output=tmp_path / "whole", progress=False)
    train(half, data=tones, output=tmp_path / "cut", progress=False)
    torch.manual_seed(99)  # nothing may depend on the global state
    train(whole, data=tones, output=tmp_path / "cut", resume=True, progress=False)
    ends = [checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "cut")]
    assert [end.name for end in ends] == ["step_00000004"] * 2
    found = tensors_of(ends[0])
    assert same(found, tensors_of(ends[1]))
    assert not same(found, tensors_of(checkpoints(tmp_path / "cut" / "checkpoints")[0]))
    assert same(tensors_of(tmp_path / "whole" / "model"), tensors_of(tmp_path / "cut" / "model"))


def test_loss_curve_equals_golden_curve(golden, config):
    keys = ("total", "loss/stft", "loss/mel", "loss/discriminator")
    golden("adversarial_reconstruction.json", config(adversarial=True), keys)


@pytest.mark.slow
def test_accumulation_steps_every_phase_once_per_two_micro_batches(config, tones, tmp_path, monkeypatch):
    from partita.training.stepper import Stepper

    moved: dict[str, list[bool]] = {"generator": [], "discriminator": []}
    before: dict[str, list[torch.Tensor]] = {}
    original = Stepper._clip

    def watched(self, phase):
        parameters = [p for group in self.optimizers[phase].param_groups for p in group["params"]]
        if phase in before:
            moved[phase].append(any(not torch.equal(a, b) for a, b in zip(before[phase], parameters)))
        before[phase] = [p.detach().clone() for p in parameters]
        return original(self, phase)

    monkeypatch.setattr(Stepper, "_clip", watched)
    train(config(adversarial=True, accumulation=2, steps=3), data=tones, output=tmp_path / "run", progress=False)
    # Compared before each micro-batch: no change within a step, a change between steps.
    assert moved == {"generator": [False, True] * 2 + [False], "discriminator": [False, True] * 2 + [False]}


def test_run_writes_model_checkpoint_log_and_samples(run, tones):
    assert {path.name for path in (run / "model").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert [path.parent for path in run.rglob("model.safetensors")] == [run / "model"]
    checkpoint = run / "checkpoints" / "step_00000006"
    assert {path.name for path in checkpoint.iterdir()} == {
        "objective.safetensors",
        "optimizer_generator.safetensors",
        "optimizer_generator.json",
        "ema.safetensors",
        "state.json",
    }
    assert json.loads((run / "config.json").read_text())["config"]["trainer"]["steps"] == 6
    log = read_log(run / "log.jsonl")
    assert [line["step"] for line in log if "total" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log if "validation/log_mel_l1" in line] == [0, 3, 6]
    assert len(list((run / "samples").glob("step_*/*.wav"))) == 6


def test_saved_model_has_averaged_weights_and_latent_statistics(run):
    model = Autoencoder.from_pretrained(run / "model")
    averages, _ = read_tensors(run / "checkpoints" / "step_00000006" / "ema.safetensors")
    assert same({k: v for k, v in model.state_dict().items() if v.is_floating_point()}, averages)
    spec = model.latent_spec
    assert spec.mean is not None and spec.std is not None and min(spec.std) > 0
    latents = model.encode(torch.randn(1, 2, 4000) * 0.1)
    back = latents.normalize().denormalize()
    torch.testing.assert_close(back.values, latents.values, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_training_lowers_the_loss(config, tones, tmp_path):
    train(config(steps=40), data=tones, output=tmp_path / "run", progress=False)
    totals = [line["total"] for line in read_log(tmp_path / "run" / "log.jsonl") if "total" in line]
    assert sum(totals[-5:]) < 0.75 * sum(totals[:5])


@pytest.mark.slow
def test_last_checkpoints_are_kept(config, tones, tmp_path):
    settings = {"data": tones, "progress": False, "checkpoint_every": 1, "keep": 2}
    train(config(), output=tmp_path / "run", **settings)
    found = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert found == ["step_00000005", "step_00000006"]


@pytest.mark.slow
def test_broken_files_are_skipped_and_listed(config, tones, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for file in (tones / "train").iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    (data / "not_audio.wav").write_text("hello")
    soundfile.write(data / "nan.wav", [[float("nan")] * 2] * 4000, 8000, subtype="FLOAT")
    train(config(steps=4), data=data, output=tmp_path / "run", progress=False)
    printed = capsys.readouterr().out
    assert "2 files" in printed and "not_audio.wav" in printed and "nan.wav" in printed
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_file_with_several_errors_is_counted_as_one(config, tmp_path, capsys):
    """The message has the position of the error, which depends on the crop."""
    (tmp_path / "train").mkdir()
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (80_000, 2))
    soundfile.write(tmp_path / "train" / "whole.flac", noise, 8000)
    whole = (tmp_path / "train" / "whole.flac").read_bytes()
    (tmp_path / "train" / "cut.flac").write_bytes(whole[: len(whole) // 4])
    train(config(steps=8), data=tmp_path, output=tmp_path / "run", progress=False)
    (reason, count), *others = read_log(tmp_path / "run" / "log.jsonl")[-1]["broken"].items()
    assert "cut.flac" in reason and count > 3 and not others
    assert "1 files" in capsys.readouterr().out


def test_run_is_not_overwritten_or_resumed_with_another_config(config, tones, run, tmp_path):
    with pytest.raises(PartitaError, match="--resume"):
        train(config(), data=tones, output=run, progress=False)
    other = override(config(), ["data.batch_size=2"])
    with pytest.raises(PartitaError, match="data.batch_size was 4, now 2"):
        train(other, data=tones, output=run, resume=True, progress=False)


def test_launched_processes_that_accelerate_does_not_find(config, tones, tmp_path, monkeypatch):
    """As with torchrun on a machine without a GPU: each process would write the same run."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PartitaError, match="2 .* 1; .*ACCELERATE_USE_CPU=true"):
        train(config(), data=tones, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_init_from_starts_at_weights_of_a_model(config, tones, run, tmp_path):
    from_scratch = override(config(), ["trainer.steps=1", "trainer.optimizers.generator.lr=0.0"])
    train(from_scratch, data=tones, output=tmp_path / "run", init_from=run / "model", progress=False)
    one, other = (tensors_of(folder / "model") for folder in (run, tmp_path / "run"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_time_limit_ends_the_run(config, tones, tmp_path):
    long = override(config(), ["trainer.steps=1000000"])
    train(long, data=tones, output=tmp_path / "run", minutes=0.02, progress=False)
    last = read_log(tmp_path / "run" / "log.jsonl")[-2]
    assert last["seconds"] < 30 and last["step"] < 10_000


@pytest.mark.parametrize("minutes", [0, -1.0, math.nan, math.inf])
def test_time_limit_must_be_positive_and_finite(minutes):
    with pytest.raises(PartitaError, match=f"minutes is {minutes}"):
        TimeBudget(0.0, minutes, first_step=0, steps=9)


@pytest.fixture
def clocks(monkeypatch):
    """Seconds of the wall clock and of the processor, set by the test."""
    now = {"monotonic": 0.0, "process_time": 0.0}
    for name in now:
        monkeypatch.setattr(f"partita.training.time_budget.time.{name}", lambda name=name: now[name])
    return now


def test_processor_time_limit_counts_processor_time_of_steps_only(clocks):
    budget = TimeBudget(600.0, None, first_step=100, steps=10_000, cpu_elapsed=30.0, cpu_minutes=1.0)
    state = TrainState(100, 1000)
    clocks |= {"monotonic": 500.0, "process_time": 10.0}
    with budget.paused():
        clocks |= {"monotonic": 700.0, "process_time": 90.0}
    clocks |= {"monotonic": 800.0, "process_time": 95.0}
    assert (budget.elapsed, budget.cpu_elapsed) == (1200.0, 45.0)
    state.step = 115  # 15 steps in 15 seconds, 15 are left
    assert not budget.is_over(state) and budget.total_steps(state) == 130
    clocks["process_time"] = 110.0
    assert budget.is_over(state) and budget.total_steps(state) == 115
    wall = TimeBudget(0.0, 1.0, first_step=0, steps=9)
    clocks["process_time"] += 1000
    assert not wall.is_over(TrainState(1, 9))
    clocks["monotonic"] += 60
    assert wall.is_over(TrainState(1, 9))


@pytest.mark.slow
def test_processor_time_limit_ends_the_run_and_includes_time_before_a_resumption(config, tones, tmp_path):
    long = override(config(), ["trainer.steps=1000000"])
    settings = {"data": tones, "output": tmp_path / "run", "cpu_minutes": 0.02, "progress": False}
    train(long, **settings)
    (checkpoint,) = checkpoints(tmp_path / "run" / "checkpoints")
    state = read_json(checkpoint / "state.json")
    assert 1.2 <= state["metadata"]["cpu_seconds"] < 60 and 0 < state["step"] < 10_000
    logged = [line for line in read_log(tmp_path / "run" / "log.jsonl") if "cpu_seconds" in line]
    assert logged[-1]["cpu_seconds"] == pytest.approx(state["metadata"]["cpu_seconds"], abs=0.5)
    train(long, **settings, resume=True)  # the time is up
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == [checkpoint.name]


def test_one_time_limit_at_most():
    with pytest.raises(PartitaError, match=r"minutes is 2.*cpu_minutes is 3"):
        TimeBudget(0.0, 2.0, first_step=0, steps=9, cpu_minutes=3.0)
    with pytest.raises(PartitaError, match="cpu_minutes is -1"):
        TimeBudget(0.0, None, first_step=0, steps=9, cpu_minutes=-1.0)


def test_progress_bar_shows_si_sdr_beside_the_loss(capsys):
    bar = Progress(10, start=0, shown=True)
    bar.update(1, 10, {"loss": 0.5})
    bar.show({"SI-SDR": -12.34})
    bar.update(10, 10, {"loss": 0.25})
    bar.close()
    *_, last = capsys.readouterr().err.strip().split("\r")
    assert "loss=0.25" in last and "SI-SDR=-12.3" in last


def test_ema_follows_its_formula_and_is_swapped_in_and_out():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    ema = EMA(module, 0.5)
    module.weight.data.fill_(1.0)
    ema.update(module, 1)
    assert float(ema.tensors["weight"]) == pytest.approx(1 - 2 / 11)
    ema.update(module, 100)
    assert float(ema.tensors["weight"]) == pytest.approx(1 - 0.5 * 2 / 11)
    module.train()
    with ema.swapped_in(module):
        assert module.weight.item() == pytest.approx(1 - 1 / 11) and not module.training
    assert module.weight.item() == 1.0 and module.training


def test_failure_before_the_first_step_leaves_no_files(config, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "broken.wav").write_text("no audio")
    with pytest.raises(PartitaError, match=r"broken\.wav"):
        train(config(), data=data, output=tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "notes.txt").write_text("mine")
    with pytest.raises(PartitaError, match=r"old .*notes\.txt"):
        train(config(), data=data, output=tmp_path / "old", progress=False)
    assert (tmp_path / "old" / "notes.txt").read_text() == "mine"


def test_checkpoint_loads_as_model(run):
    from partita.model_loading import load_codec

    one, other = load_codec(run / "checkpoints" / "step_00000006"), load_codec(run / "model")
    assert one.space_id == other.space_id
    audio = torch.randn(1, 2, 1000) * 0.1
    assert torch.equal(one.encode(audio).values, other.encode(audio).values)


def state(**changes):
    def change(checkpoint):
        path = checkpoint / "state.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def metadata(**changes):
    def change(checkpoint):
        path = checkpoint / "state.json"
        saved = json.loads(path.read_text())
        path.write_text(json.dumps(saved | {"metadata": saved["metadata"] | changes}))

    return change


def groups(**changes):
    def change(checkpoint):
        path = checkpoint / "optimizer_generator.json"
        path.write_text(json.dumps([group | changes for group in json.loads(path.read_text())]))

    return change


def log(content):
    def change(checkpoint):
        path = checkpoint.parent.parent / "log.jsonl"
        path.unlink()
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def tensors(file, change):
    def changed(checkpoint):
        found, _ = read_tensors(checkpoint / file)
        write_tensors(checkpoint / file, change(found), finite=False)

    return changed


@pytest.mark.parametrize(
    "damage, message",
    [
        (state(step="6"), "state.json.step: expected int, got '6'"),
        (state(metadata=[]), "state.json.metadata"),
        (tensors("ema.safetensors", lambda t: dict(list(t.items())[1:])), "1 missing"),
        (tensors("ema.safetensors", lambda t: {k: v / 0 for k, v in t.items()}), "not finite"),
        (tensors("objective.safetensors", lambda t: {k: v * torch.inf for k, v in t.items()}), "not finite"),
        (tensors("optimizer_generator.safetensors", lambda t: {k: v[None] for k, v in t.items()}), "another optimizer"),
        (tensors("optimizer_generator.safetensors", lambda t: t | {"x": torch.ones(1)}), "another optimizer"),
        (lambda checkpoint: (checkpoint / "optimizer_generator.json").write_text("[3]"), "another optimizer"),
        (lambda checkpoint: (checkpoint / "optimizer_generator.json").write_text("{}"), "another optimizer"),
        (groups(betas="high"), "another optimizer: betas was 'high', now "),
        (groups(betas=[0.1, 0.2]), "another optimizer: betas was .0.1, 0.2."),
        (groups(params=[1, 0]), "another optimizer: params was .1, 0., now "),
        (groups(params="all"), "another optimizer: params was 'all'"),
        (tensors("optimizer_generator.safetensors", lambda t: t | {"9999.step": torch.ones(())}), "9999.step"),
        (tensors("optimizer_generator.safetensors", lambda t: t | {"0.more": torch.ones(())}), "another .*0.more"),
        (tensors("optimizer_generator.safetensors", lambda t: t | {"0.step": torch.ones(2)}), "another .*0.step was"),
        (state(step=-5), "state.json: step is -5.* 6"),
        (state(step=7), "state.json: step is 7.* 6"),
        (metadata(seconds=-1.0), "state.json: seconds is -1.0"),
        (log("5\n"), "log.jsonl .*line 1 is '5'"),
        (log('{"step": 1}\n{"a": 1}\n'), "line 2 is .*a"),
        (log('{"step": "x"}\n'), "line 1 is "),
        (log(b'{"step": 1}\n\xff\xfe\n{"step": 2}\n'), "line 2 is "),
        (log(None), "cannot read .*log.jsonl: Is a directory"),
    ],
)
def test_damaged_checkpoint(config, tones, run, tmp_path, damage, message):
    shutil.copytree(run, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "step_00000006")
    with pytest.raises(PartitaError, match=message) as caught:
        train(config(steps=7), data=tones, output=tmp_path / "run", resume=True, progress=False)
    assert "\n" not in str(caught.value)


def test_checkpoint_is_checked_before_the_model_is_built(run, tmp_path):
    from partita.model_loading import load_model

    shutil.copytree(run, tmp_path / "run")
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["model"]["encoder"]["attention_dim"] = 1 << 15
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    with pytest.raises(PartitaError, match="step_00000006"):
        load_model(tmp_path / "run" / "checkpoints" / "step_00000006")
    (tmp_path / "run" / "config.json").write_text("[]")
    with pytest.raises(PartitaError, match="config.json"):
        load_model(tmp_path / "run" / "checkpoints" / "step_00000006")


@pytest.mark.parametrize("name", ["objective.safetensors", "ema.safetensors"])
def test_checkpoint_with_pickle_or_outward_link(run, tmp_path, name):
    from partita.model_loading import load_model

    shutil.copytree(run, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000006"
    (checkpoint / "old").mkdir()
    (checkpoint / "old" / "weights.pt").write_bytes(b"")
    with pytest.raises(PartitaError, match="old/weights.pt"):
        load_model(checkpoint)
    (checkpoint / "old" / "weights.pt").unlink()
    (checkpoint / name).rename(tmp_path / "elsewhere")
    (checkpoint / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PartitaError, match=f"{name} .*elsewhere"):
        load_model(checkpoint)


def test_mono_model_trains_on_stereo_files(config, tones, tmp_path, ok):
    run = config(steps=2)
    audio = AudioSpec(8000, 1, (ChannelLayout.MONO,))
    run = replace(run, model=replace(run.model, audio=audio))
    model = train(run, data=tones, output=tmp_path / "run", progress=False)
    samples = sorted((tmp_path / "run/samples").rglob("*.wav"))
    assert samples and all(soundfile.info(file).channels == 1 for file in samples)
    printed, notes = ok("evaluate", model, "--data", tones, "--limit", "1")
    assert "mono" in notes and "log" in printed
