"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_testing import DISCRIMINATOR_CHECKS, LOSS_CHECKS, DiscriminatorCase, LatentDiscriminatorCase, LossCase

COMPONENTS = [
    "discriminator/complex_stft",
    "discriminator/multi_band_stft",
    "discriminator/multi_period",
    "discriminator/multi_scale",
    "latent_discriminator/convolutional",
    "loss/companded_stft",
    "loss/log_error",
    "loss/loudness",
    "loss/multi_resolution_stft",
    "loss/multi_scale_mel",
    "loss/relative_l1",
    "loss/waveform_l1",
]
ROLES = {
    "discriminator": (DiscriminatorCase, DISCRIMINATOR_CHECKS),
    "latent_discriminator": (LatentDiscriminatorCase, DISCRIMINATOR_CHECKS),
    "loss": (LossCase, LOSS_CHECKS),
}


def test_every_component_has_an_entry():
    found = components().items()
    ours = [tag for tag, config in found if config.__module__.startswith("partita_losses.")]
    assert COMPONENTS == [tag for tag in ours if not tag.startswith("balancer/")]  # balancers have no suite


@pytest.mark.parametrize(
    "name, check", [(name, check) for name in COMPONENTS for check in ROLES[name.split("/")[0]][1]]
)
def test_conformance(name, check):
    case, _ = ROLES[name.split("/")[0]]
    check(case(lookup(name).example()))
