"""Conformance suite of objectives that train an autoencoder."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from partita_core.autoencoder import Autoencoder
from partita_core.configs import from_dict, to_dict
from partita_core.layouts import ChannelLayout
from partita_core.registry import Config
from partita_core.role_outputs import StepOutput
from torch import Tensor, nn

from ._common import Case, Suite, check, expect, expect_equal, expect_finite, noise
from .dummies import autoencoder


@dataclass(frozen=True)
class _Progress:
    """State of a run, with the fields of `partita.objectives.TrainState`."""

    step: int = 3
    total_steps: int = 10
    progress: float = 0.3


@dataclass(frozen=True)
class ObjectiveCase(Case):
    """An objective under test.

    Attributes:
        decoder: Config of the decoder of the model; None for a small feed-forward one.
        samples: minimum number of samples per item; several windows of the losses.
    """

    decoder: Config | None = None
    samples: int = 2048

    def model(self) -> Autoencoder:
        """Build the model."""
        return autoencoder(decoder=self.decoder)

    def make(self) -> Any:
        """Build the objective from its Config."""
        return self.config.build(model=self.model())

    def batch(self, objective: Any, *, items: int = 3, gain: float = 0.3) -> dict[str, Tensor]:
        """Stereo items of different lengths, zero past their ends."""
        multiple = objective.crop_multiple
        samples = -(-self.samples // multiple) * multiple
        lengths = torch.tensor([samples, samples * 3 // 4, samples // 2])[:items]
        audio = gain * noise(items, 2, samples, seed=1, dtype=torch.float32)
        audio[torch.arange(samples) >= lengths[:, None, None].expand(-1, 2, 1)] = 0
        layout = torch.full((items,), int(ChannelLayout.STEREO))
        return {"audio": audio, "audio_lengths": lengths, "layout": layout, "target_layout": layout}

    def steps(self, objective: Any, batch: dict[str, Tensor]) -> dict[str, StepOutput]:
        """Output of each phase of a step, which passes its samples to the next one."""
        outputs, batch = {}, dict(batch)
        for phase in objective.phases:
            outputs[phase] = output = objective(batch, _Progress(), phase)
            if isinstance(output, StepOutput) and output.samples is not None:
                batch["samples"] = output.samples
        return outputs


def _trained(objective: Any, phase: str) -> list[nn.Parameter]:
    return [parameter for group in objective.parameter_groups(phase) for parameter in group["params"]]


@check(fix="set phases, requires, crop_multiple and model in the class or its constructor")
def attributes_are_set(case: ObjectiveCase) -> None:
    """Phases, keys of the batch, the multiple of crops and the model are set."""
    objective = case.build(torch.float32)
    batch = case.batch(objective)
    expect(bool(objective.phases), "`phases` is empty")
    absent = sorted(keys for keys in objective.requires if not any(key in batch for key in keys.split("|")))
    expect(not absent, f"`requires` has {absent}; batches of audio have {sorted(batch)}")
    hop = objective.model.latent_spec.hop
    expect(objective.crop_multiple % hop == 0, f"`crop_multiple` is {objective.crop_multiple}, the hop is {hop}")


@check(attributes_are_set, fix="return StepOutput(total, losses, metrics, samples) with all but the total detached")
def outputs_are_as_declared(case: ObjectiveCase) -> None:
    """Each phase returns a finite float32 total with a gradient, and detached values per loss and metric."""
    objective = case.build(torch.float32).train()
    for phase, output in case.steps(objective, case.batch(objective)).items():
        expect(isinstance(output, StepOutput), f"phase {phase} returns a {type(output).__name__}, not a StepOutput")
        total = output.total
        right = total.dim() == 0 and total.dtype == torch.float32 and total.requires_grad
        described = f"{tuple(total.shape)} {total.dtype}, requires_grad={total.requires_grad}"
        expect(right, f"the total of phase {phase} is {described}; it must be () float32 with a gradient")
        expect_finite(total, f"the total of phase {phase}")
        expect(bool(output.losses), f"phase {phase} has no entry in `losses`")
        for name, value in (output.losses | output.metrics).items():
            expect(value.numel() == 1, f"{name} of phase {phase} has {value.numel()} values; it must have one")
            expect(not value.requires_grad, f"{name} of phase {phase} requires a gradient")
            expect_finite(value, f"{name} of phase {phase}")
        expect(output.samples is None or not output.samples.requires_grad, f"the samples of {phase} have a gradient")


@check(attributes_are_set, fix="return each trained parameter from parameter_groups of one phase")
def phases_train_different_parameters(case: ObjectiveCase) -> None:
    """Every phase trains parameters, none is trained by two phases, and those of the model are among them."""
    objective = case.build(torch.float32)
    groups = {phase: {id(parameter) for parameter in _trained(objective, phase)} for phase in objective.phases}
    expect(all(groups.values()), f"phases without parameters: {[name for name, ids in groups.items() if not ids]}")
    every = set().union(*groups.values())
    expect(len(every) == sum(map(len, groups.values())), "a parameter is in two phases")
    named = objective.model.named_parameters()
    left_out = [name for name, parameter in named if parameter.requires_grad and id(parameter) not in every]
    expect(not left_out, f"parameters of the model that no phase trains: {left_out[:3]}")


@check(
    outputs_are_as_declared,
    phases_train_different_parameters,
    fix="call modules of other phases through `partita_core.frozen_call`, and use all that a phase trains",
)
def gradients_stay_in_their_phase(case: ObjectiveCase) -> None:
    """The total of a phase gives finite gradients to all parameters of that phase and to no others."""
    objective = case.build(torch.float32).train()
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    for phase, output in case.steps(objective, case.batch(objective)).items():
        objective.zero_grad()
        output.total.backward()
        own = {id(parameter) for parameter in _trained(objective, phase)}
        for parameter in objective.parameters():
            name = names[id(parameter)]
            if id(parameter) in own:
                expect(parameter.grad is not None, f"phase {phase} gives {name} no gradient")
                expect_finite(parameter.grad, f"the gradient of {name}")
            else:
                free = parameter.grad is None or not bool(parameter.grad.any())
                expect(free, f"phase {phase} gives {name} a gradient, which another phase trains")


@check(outputs_are_as_declared, fix="draw random numbers from torch's global generators only")
def equal_seeds_give_equal_totals(case: ObjectiveCase) -> None:
    """Two objectives with equal weights, the same batch and the same random state have equal totals."""
    totals = []
    for _ in range(2):
        objective = case.build(torch.float32).train()
        torch.manual_seed(5)
        totals.append([output.total for output in case.steps(objective, case.batch(objective)).values()])
    expect_equal(totals[1], totals[0], "the second objective", exact=True)


@check(outputs_are_as_declared, fix="add a floor to what is divided by, or taken the root or logarithm of")
def silence_is_finite(case: ObjectiveCase) -> None:
    """Totals and gradients of a silent batch are finite."""
    objective = case.build(torch.float32).train()
    for phase, output in case.steps(objective, case.batch(objective, gain=0.0)).items():
        expect_finite(output.total, f"the total of phase {phase}")
        objective.zero_grad()
        output.total.backward()
        for parameter in _trained(objective, phase):
            expect_finite(parameter.grad, f"the gradients of phase {phase}")


@check(outputs_are_as_declared, fix="compute losses with autocast off, from `upcast` values")
def runs_under_autocast(case: ObjectiveCase) -> None:
    """Under bfloat16 autocast totals are finite and float32."""
    objective = case.build(torch.float32).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = case.steps(objective, case.batch(objective))
    for phase, output in outputs.items():
        expect(output.total.dtype == torch.float32, f"the total of phase {phase} is {output.total.dtype}")
        expect_finite(output.total, f"the total of phase {phase}")


@check(fix="register the Config with @register, with settings of plain types")
def config_round_trip(case: ObjectiveCase) -> None:
    """The Config equals itself after a round trip through JSON, and the objective carries it."""
    back = from_dict(Config, json.loads(json.dumps(to_dict(case.config))))
    expect(back == case.config, f"{case.config} became {back}")
    expect(case.make().config == case.config, "the objective does not have its Config as the attribute `config`")


OBJECTIVE_CHECKS = Suite(
    "objective",
    ObjectiveCase,
    (
        attributes_are_set,
        outputs_are_as_declared,
        phases_train_different_parameters,
        gradients_stay_in_their_phase,
        equal_seeds_give_equal_totals,
        silence_is_finite,
        runs_under_autocast,
        config_round_trip,
    ),
)

check_objective = OBJECTIVE_CHECKS.check
"""Run the suite on the objective of a Config, or on an `ObjectiveCase`; see `Suite.check`."""
