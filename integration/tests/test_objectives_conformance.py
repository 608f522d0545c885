"""Conformance of every objective that trains an autoencoder, with one entry per component; every check can fail."""

from dataclasses import dataclass

import pytest
import torch
from partita.objectives import Objective, ObjectiveConfig
from partita_core import StepOutput, components, lookup, register, registry
from partita_testing import OBJECTIVE_CHECKS, ObjectiveCase, check_objective
from partita_testing.dummies import DenoisingConfig

COMPONENTS = [
    "objective/adversarial_reconstruction",
    "objective/consistency_training",
]
DECODERS = {"objective/consistency_training": DenoisingConfig()}


def test_list_of_components_is_complete():
    registered = components("objective/*").items()
    assert COMPONENTS == [
        tag
        for tag, config in registered
        if config.__module__.startswith("partita.")
        and issubclass(config, ObjectiveConfig)
        and config.model_roles == ("autoencoder",)
    ]


@pytest.mark.parametrize("check", OBJECTIVE_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_objective_conformance(name, check):
    check(ObjectiveCase(lookup(name).example(), decoder=DECODERS.get(name)))


# ------------------------------------------------------------------ every check can fail


@pytest.fixture
def registered(monkeypatch):
    """A registry that forgets what a test registers."""
    components()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


class Plain(Objective):
    """Absolute difference of the samples."""

    phases = ("generator",)
    requires = frozenset({"audio"})

    def __init__(self, model):
        super().__init__()
        self.model, self.crop_multiple = model, model.latent_spec.hop

    def total(self, samples, audio):
        return (samples - audio).abs().mean()

    def forward(self, batch, state, phase):
        samples, _ = self.model(batch["audio"], batch["layout"])
        total = self.total(samples, batch["audio"]).float()
        return StepOutput(total, {"l1": total.detach()}, {}, samples.detach())

    def parameter_groups(self, phase):
        return [{"params": list(self.model.parameters())}]


class NoPhase(Plain):
    phases = ()


class Attached(Plain):
    def forward(self, batch, state, phase):
        output = super().forward(batch, state, phase)
        return output._replace(losses={"l1": output.total})


class EncoderOnly(Plain):
    def parameter_groups(self, phase):
        return [{"params": list(self.model.encoder.parameters())}]


class Spilling(Plain):
    """A second phase through which the gradients of the first one flow."""

    phases = ("generator", "discriminator")

    def __init__(self, model):
        super().__init__(model)
        self.judge = torch.nn.Linear(1, 1)

    def total(self, samples, audio):
        return self.judge((samples - audio).abs().mean()[None]).square().sum()

    def parameter_groups(self, phase):
        return [{"params": list((self.model if phase == "generator" else self.judge).parameters())}]


class Fresh(Plain):
    """A source of random numbers that no seed resets."""

    draws = torch.Generator()

    def total(self, samples, audio):
        return super().total(samples, audio) * (1 + torch.rand((), generator=self.draws))


class Relative(Plain):
    def total(self, samples, audio):
        return super().total(samples, audio) / audio.abs().mean()


class HalfPrecision(Plain):
    def forward(self, batch, state, phase):
        output = super().forward(batch, state, phase)
        half = torch.is_autocast_enabled("cpu")
        return output._replace(total=output.total.bfloat16() if half else output.total)


BROKEN = {
    "attributes_are_set": NoPhase,
    "outputs_are_as_declared": Attached,
    "phases_train_different_parameters": EncoderOnly,
    "gradients_stay_in_their_phase": Spilling,
    "equal_seeds_give_equal_totals": Fresh,
    "silence_is_finite": Relative,
    "runs_under_autocast": HalfPrecision,
}


def config_for(objective):
    body = {"build": lambda self, *, model: objective(model), "example": classmethod(lambda cls: cls())}
    return register("objective/tested")(dataclass(frozen=True)(type("TestedConfig", (ObjectiveConfig,), body)))()


@pytest.mark.parametrize("check", BROKEN)
def test_check_fails_for_its_broken_objective(check, registered):
    with pytest.raises(AssertionError, match=f"objective/tested: {check}"):
        OBJECTIVE_CHECKS[check](config_for(BROKEN[check]))


def test_sound_objective_passes_until_it_is_unregistered(registered):
    config = config_for(Plain)
    check_objective(config)
    del registry._registry["objective/tested"]
    with pytest.raises(AssertionError, match="config_round_trip"):
        OBJECTIVE_CHECKS["config_round_trip"](config)
    assert set(OBJECTIVE_CHECKS.names) == {*BROKEN, "config_round_trip"}
