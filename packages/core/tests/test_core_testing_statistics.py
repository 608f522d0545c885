"""Running statistics of bottlenecks are not mistaken for noise, in whatever order they are updated and used."""

from unittest import SkipTest

import pytest
from partita_core import mean_within, update_average
from partita_testing import BOTTLENECK_CHECKS
from partita_testing.dummies import NoisyConfig
from partita_testing.dummies.broken import method

CHECKS = {check.__name__: check for check in BOTTLENECK_CHECKS}


def updating_first(always):
    """A change of the dummy that updates its statistic before use: when it should, or always in training."""

    def body(parent, self, hidden, *, stochastic=None, lengths=None):
        if self.training and (always or self.is_stochastic(stochastic)):
            power = mean_within(hidden.detach().square().mean(1), lengths)
            update_average(self.power, power.reshape(1), 0.1)
        updated = self.power.clone()
        output = parent.forward(self, hidden, stochastic=stochastic, lengths=lengths)
        self.power.copy_(updated)  # not once more by the dummy itself
        return output

    return method("forward", body)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize(
    "name",
    [
        "eval_noise_is_opt_in",
        "training_without_noise_is_deterministic",
        "posterior_mean_equals_latents",
        "padding_is_ignored",
        "recovers_from_nonfinite_step",
    ],
)
def test_statistic_that_is_updated_before_use_passes(name, noise):
    CHECKS[name](updating_first(always=False)(NoisyConfig(noise=noise)))


def test_statistic_that_is_updated_despite_stochastic_false_fails_one_check():
    config = updating_first(always=True)(NoisyConfig(noise=0.0))
    CHECKS["eval_noise_is_opt_in"](config)
    with pytest.raises(AssertionError, match="power has changed"):
        CHECKS["training_without_noise_is_deterministic"](config)
    with pytest.raises(SkipTest, match="training_without_noise_is_deterministic"):
        CHECKS["posterior_mean_equals_latents"](config)
