"""Every check that only discriminators have can fail; the others are shared with the suites of parts."""

import pytest
import torch
from partita_testing import BOTTLENECK_CHECKS, DISCRIMINATOR_CHECKS, DiscriminatorCase, LatentDiscriminatorCase
from partita_testing.dummies import StridedDiscriminator, StridedDiscriminatorConfig
from partita_testing.dummies.broken import Broken, forward, method


def without_features(parent, self, signal):
    return [output._replace(features=()) for output in parent.forward(self, signal)]


def one_output_for_short_signals(parent, self, signal):
    outputs = parent.forward(self, signal)
    return outputs if signal.shape[-1] < 1000 else [outputs[0]._replace(features=outputs[0].features * 2)]


def mean_over_items(parent, self, signal):
    return [output._replace(logits=output.logits.mean(0)) for output in parent.forward(self, signal)]


BROKEN = {
    "no features": ("outputs_are_as_declared", method("forward", without_features)),
    "features that depend on the length": ("outputs_are_as_declared", method("forward", one_output_for_short_signals)),
    "no batch": ("outputs_are_as_declared", method("forward", mean_over_items)),
    "a tuple": ("outputs_are_as_declared", method("forward", lambda parent, self, x: tuple(parent.forward(self, x)))),
    "division by zero for one sample": (
        "short_signals_are_accepted",
        forward(lambda self, x, logits: logits + 0 * logits.mean() / x.diff(dim=-1).abs().sum()),
    ),
    "logits without the hidden layer": (
        "logits_reach_every_parameter",
        forward(lambda self, x, logits: self.last(torch.ones_like(self.hidden(x)))),
    ),
    "zero in bfloat16": (
        "runs_in_bfloat16",
        forward(lambda self, x, logits: logits * (self.last.weight.dtype != torch.bfloat16)),
    ),
    "float32 inside": ("runs_in_float64", forward(lambda self, x, logits: logits.float().to(logits.dtype))),
}


def test_there_is_a_broken_discriminator_for_every_own_check():
    own = set(DISCRIMINATOR_CHECKS.names) - set(BOTTLENECK_CHECKS.names)
    assert own <= {check for check, _ in BROKEN.values()}


@pytest.mark.parametrize("check, broken", BROKEN.values(), ids=BROKEN)
def test_check_catches_broken_discriminator(check, broken):
    with pytest.raises(AssertionError, match=f"^discriminator Broken: {check}: ") as caught:
        DISCRIMINATOR_CHECKS[check](broken(StridedDiscriminatorConfig()))
    assert ": raised " not in str(caught.value)


def test_another_module_is_not_a_discriminator():
    class Plain(torch.nn.Module):
        pass

    class PlainConfig(Broken):
        def build(self, **derived):
            return Plain()

    with pytest.raises(AssertionError, match="Plain is not a Discriminator"):
        DISCRIMINATOR_CHECKS["outputs_are_as_declared"](PlainConfig(StridedDiscriminatorConfig()))


def test_case_of_latents_builds_for_their_width():
    class LatentConfig(Broken):
        def build(self, *, dim):
            return StridedDiscriminator(dim)

    part = LatentDiscriminatorCase(LatentConfig(StridedDiscriminatorConfig()), dim=6).make()
    assert part.hidden.in_channels == 6
    assert DiscriminatorCase(StridedDiscriminatorConfig()).make().hidden.in_channels == 2
