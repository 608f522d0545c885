"""Optimizers and schedules: learning rates by hand, state that is restored exactly, and Muon on matrices alone."""

import json

import pytest
import torch
from partita.objectives import TrainState
from partita.training import (
    AdamWConfig,
    Constant,
    Cosine,
    InverseSqrt,
    MuonConfig,
    OptimizerConfig,
    RAdamConfig,
    TrainerConfig,
    train,
)
from partita.training.checkpoints import checkpoints
from partita.training.logs import read_log
from partita.training.optimizer_state import pack_optimizer, unpack_optimizer
from partita.training.optimizers import JointOptimizer
from partita_core import PartitaError, components, override, read_json, read_tensors
from torch import nn

OPTIMIZERS = [cls.example() for cls in components("optimizer/*").values()]


def parameters() -> dict[str, nn.Parameter]:
    """A matrix, a gain as weight normalization has it, a convolution and a bias."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (6, 4), "gain": (6, 1), "convolution": (6, 4, 3), "bias": (6,)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def step(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter]) -> None:
    sum(parameter.sin().sum() for parameter in trained.values()).backward()
    optimizer.step()
    optimizer.zero_grad()


def built(config: OptimizerConfig, trained: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    return config.build(groups=[{"params": list(trained.values())}])


def test_learning_rates_of_schedules():
    cosine = AdamWConfig(lr=2.0, schedule=Cosine(warmup_steps=10, final=0.1))
    assert cosine.lr_at(TrainState(0, 100)) == pytest.approx(0.2)
    assert cosine.lr_at(TrainState(50, 100)) == pytest.approx(2.0 * 0.55)
    assert cosine.lr_at(TrainState(100, 100)) == pytest.approx(0.2)
    root = AdamWConfig(lr=1.0, schedule=InverseSqrt(decay_steps=100))
    assert root.lr_at(TrainState(300, 1000)) == pytest.approx(0.5)
    constant = AdamWConfig(lr=1.0, schedule=Constant(warmup_steps=4))
    assert [constant.lr_at(TrainState(step, 9)) for step in (0, 1, 3, 8)] == [0.25, 0.5, 1.0, 1.0]


def test_optimizers_and_schedules_are_overrides():
    config = {"generator": AdamWConfig(lr=0.5)}
    changed = override(
        TrainerConfig(optimizers=config), ["optimizers.generator.schedule=cosine", "optimizers.generator.lr=0.25"]
    )
    assert changed.optimizers["generator"] == AdamWConfig(lr=0.25, schedule=Cosine())
    changed = override(
        TrainerConfig(optimizers=config), ["optimizers.generator=muon", "optimizers.generator.schedule.warmup_steps=7"]
    )
    assert changed.optimizers["generator"] == MuonConfig(schedule=InverseSqrt(warmup_steps=7))
    with pytest.raises(PartitaError, match="muon"):
        override(TrainerConfig(optimizers=config), ["optimizers.generator=mun"])


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: config.tag)
def test_state_is_restored_bit_for_bit(config):
    trained, others = parameters(), parameters()
    first, second = built(config, trained), built(config, others)
    for _ in range(7):
        step(first, trained)
    for name, parameter in others.items():
        parameter.data.copy_(trained[name].data)
    tensors, groups = pack_optimizer(first)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}  # as from a file
    unpack_optimizer(second, tensors, json.loads(json.dumps(groups)))
    assert all(torch.equal(trained[name], others[name]) for name in trained)
    for _ in range(3):
        step(first, trained)
        step(second, others)
    assert all(torch.equal(trained[name], others[name]) for name in trained)
    again, _ = pack_optimizer(second)
    assert again.keys() == tensors.keys()


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: config.tag)
def test_state_of_another_optimizer_is_rejected(config):
    trained = parameters()
    optimizer = built(config, trained)
    step(optimizer, trained)
    tensors, groups = pack_optimizer(optimizer)
    groups = json.loads(json.dumps(groups))
    name = "1.exp_avg"
    wrong = {
        "0.more": tensors | {"0.more": torch.ones(())},
        "9999.step": tensors | {"9999.step": torch.ones(())},
        f"{name} was": tensors | {name: torch.ones(7)},
        f"{name} is missing": {key: tensor for key, tensor in tensors.items() if key != name},
        "not finite": tensors | {name: tensors[name] * torch.nan},
    }
    for message, changed in wrong.items():
        with pytest.raises(PartitaError, match=message):
            unpack_optimizer(built(config, parameters()), changed, groups)
    other = RAdamConfig() if config.tag == "optimizer/muon" else MuonConfig()
    with pytest.raises(PartitaError):
        unpack_optimizer(built(other, parameters()), tensors, groups)


def test_muon_orthogonalizes_matrices_and_leaves_the_rest_to_adamw():
    settings = {"lr": 0.1, "weight_decay": 0.0, "betas": (0.9, 0.99)}
    trained, others = parameters(), parameters()
    muon, adamw = built(MuonConfig(**settings), trained), built(AdamWConfig(**settings), others)
    assert isinstance(muon, JointOptimizer) and len(muon.param_groups) == 2
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    step(muon, trained)
    step(adamw, others)
    for name in ("gain", "convolution", "bias"):
        assert torch.equal(trained[name], others[name]), name
    moved = (trained["matrix"] - before["matrix"]).detach() / (0.1 * 0.2 * 6**0.5)
    # Five Newton-Schulz iterations bring singular values near 1; those of the gradient spread over a wide range.
    assert 0.5 < torch.linalg.svdvals(moved).min() and torch.linalg.svdvals(moved).max() < 1.5


@pytest.mark.parametrize("names", [("matrix",), ("bias", "gain")])
def test_muon_of_one_kind_of_parameters_alone(names):
    trained = {name: parameter for name, parameter in parameters().items() if name in names}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = built(MuonConfig(), trained)
    step(optimizer, trained)
    assert len(optimizer.param_groups) == 1
    assert not any(torch.equal(trained[name], before[name]) for name in names)


@pytest.mark.slow
def test_a_run_with_muon_is_resumed_exactly(config, tones, tmp_path):
    changes = ["trainer.optimizers.generator=muon", "trainer.optimizers.generator.schedule=constant"]
    run = override(config(steps=4), [*changes, "trainer.optimizers.generator.lr=0.001"])
    train(run, data=tones, output=tmp_path / "whole", progress=False)
    train(override(run, ["trainer.steps=2"]), data=tones, output=tmp_path / "cut", progress=False)
    train(run, data=tones, output=tmp_path / "cut", resume=True, progress=False)
    ends = [checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "cut")]
    for file in ("objective.safetensors", "optimizer_generator.safetensors", "ema.safetensors"):
        one, other = (read_tensors(end / file)[0] for end in ends)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), file
    assert any(
        name.endswith("momentum_buffer") for name in read_tensors(ends[1] / "optimizer_generator.safetensors")[0]
    )
    assert read_json(tmp_path / "cut" / "config.json")["config"]["trainer"]["optimizers"]["generator"]["type"] == (
        "optimizer/muon"
    )
    rates = [line["lr/generator"] for line in read_log(tmp_path / "cut" / "log.jsonl") if "total" in line]
    assert rates == pytest.approx([0.001] * 4)
