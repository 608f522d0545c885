"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_core.testing import DISCRIMINATOR_CHECKS, LOSS_CHECKS, DiscriminatorCase, LatentDiscriminatorCase

LOSSES = [
    "loss/multi_resolution_stft",
    "loss/multi_scale_mel",
    "loss/waveform_l1",
]
DISCRIMINATORS = [
    "discriminator/complex_stft",
    "discriminator/multi_band_stft",
    "discriminator/multi_period",
    "discriminator/multi_scale",
    "latent_discriminator/convolutional",
]


@pytest.mark.parametrize("pattern, names", [("loss/*", LOSSES), ("*discriminator/*", DISCRIMINATORS)])
def test_every_component_has_an_entry(pattern, names):
    registered = components(pattern).items()
    assert names == [tag for tag, config in registered if config.__module__.startswith("partita_losses.")]


@pytest.mark.parametrize("check", LOSS_CHECKS)
@pytest.mark.parametrize("name", LOSSES)
def test_conformance(name, check):
    check(lookup(name).example())


@pytest.mark.parametrize("check", DISCRIMINATOR_CHECKS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_conformance(name, check):
    case = LatentDiscriminatorCase if name.startswith("latent_") else DiscriminatorCase
    check(case(lookup(name).example()))
