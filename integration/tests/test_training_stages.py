"""Stages of adversarial training: which phases run, which terms are in the loss, and what it costs before."""

from dataclasses import replace

import pytest
import torch
from partita.objectives import TrainState
from partita.objectives.adversarial_schedule import AdversarialSchedule
from partita.training import train
from partita.training.logs import read_log
from partita_core import PartitaError, override, read_tensors

STAGES = {"adversarial_from": 0.5, "discriminator_warmup": 0.2, "adversarial_ramp": 0.25}
ADVERSARIAL = {"adversarial", "feature_matching"}


def staged(config, *, balancer, **stages):
    found = config(adversarial=True, steps=10)
    plain = {} if balancer else {"balancer": None}
    return replace(found, objective=replace(found.objective, **plain, **(STAGES | stages)))


def test_stages_and_scale_by_progress():
    schedule = AdversarialSchedule(0.5, 0.25, 0.5)
    expected = ["reconstruction", "discriminator warmup", "adversarial", "adversarial", "adversarial"]
    assert [schedule.stage(progress) for progress in (0, 0.25, 0.5, 0.75, 1)] == expected
    assert [schedule.scale(progress) for progress in (0.5, 0.75, 1)] == [0, 0.5, 1]
    assert AdversarialSchedule().stage(0) == "adversarial" and AdversarialSchedule().scale(0) == 1


@pytest.mark.parametrize("balancer", [False, True])
def test_terms_and_weights_follow_the_stages(config, balancer):
    run = staged(config, balancer=balancer)
    it = run.objective.build(model=run.model.build())
    samples, layout = 480, torch.tensor([1, 1])
    batch = {"audio": 0.1 * torch.randn(2, 2, samples), "audio_lengths": torch.tensor([samples] * 2)}
    batch |= {"layout": layout, "target_layout": layout}
    calls = []
    it.discriminator.register_forward_hook(lambda *_: calls.append(1))
    for step, phases, scale in ((0, 1, None), (3, 2, None), (5, 2, 0.0), (6, 2, 0.4), (8, 2, 1.0)):
        state = TrainState(step, 10)
        assert it.phases_at(state) == ("generator", "discriminator")[:phases]
        calls.clear()
        output = it(batch, state, "generator")
        assert ADVERSARIAL & output.losses.keys() == (ADVERSARIAL if scale is not None else set())
        assert bool(calls) == (scale is not None)
        weights = it.weights | {name: it.weights[name] * (scale or 0) for name in ADVERSARIAL}
        total = sum(weights[name] * value for name, value in output.losses.items() if name in weights)
        own = it.model.bottleneck.loss_weights
        total = total + sum(own[name] * value for name, value in output.losses.items() if name in own)
        torch.testing.assert_close(output.total.detach(), total)


def test_run_through_all_stages(config, tones, tmp_path):
    run = staged(config, balancer=True)
    train(run, data=tones, output=tmp_path / "run", checkpoint_every=2, keep=10, progress=False)
    log = read_log(tmp_path / "run" / "log.jsonl")
    stages = [(line["step"], line["stage"]) for line in log if "stage" in line]
    assert stages == [(0, "reconstruction"), (3, "discriminator warmup"), (5, "adversarial")]
    steps = {line["step"]: line for line in log if "total" in line}
    assert sorted(steps) == list(range(1, 11))
    for step, line in steps.items():
        trained = {
            name for name in ("loss/discriminator", "gradient/discriminator", "lr/discriminator") if name in line
        }
        assert len(trained) == (3 if step > 3 else 0)
        assert ("loss/adversarial" in line) == (step > 5)
    weights = [
        {
            name: value
            for name, value in read_tensors(tmp_path / f"run/checkpoints/step_{step:08d}/objective.safetensors")[
                0
            ].items()
            if name.startswith("discriminator.")
        }
        for step in (2, 4)
    ]
    fresh = run.objective.build(model=run.model.build()).discriminator
    assert weights[0].keys() == {f"discriminator.{name}" for name in fresh.state_dict()}
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
def test_discriminators_do_not_change_the_first_stage(config, tones, tmp_path):
    """Before the warmup, losses and gradients are those of a run without discriminators."""
    run = staged(config, balancer=False, adversarial_from=0.8)
    run = override(run, ["model.bottleneck=identity", "trainer.steps=4"])
    weights = {name: weight for name, weight in run.objective.weights.items() if name not in ADVERSARIAL}
    without = replace(run, objective=replace(run.objective, discriminator=None, weights=weights))
    logs = []
    for name, config_ in (("with", run), ("without", without)):
        train(config_, data=tones, output=tmp_path / name, progress=False)
        logs.append([line for line in read_log(tmp_path / name / "log.jsonl") if "total" in line][:3])
    for one, other in zip(*logs):
        assert one["total"] == other["total"] and one["gradient/generator"] == other["gradient/generator"]


def test_invalid_stages(config):
    with pytest.raises(PartitaError, match=r"discriminator_warmup is 0\.6.*adversarial_from, 0\.5"):
        staged(config, balancer=False, discriminator_warmup=0.6)
    run = staged(config, balancer=True)
    run = replace(run, objective=replace(run.objective, weights={**run.objective.weights, "stft": 0.0, "mel": 0.0}))
    with pytest.raises(PartitaError, match="adversarial_from"):
        run.objective.build(model=run.model.build())
