"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_testing import LOSS_CHECKS

COMPONENTS = [
    "loss/multi_resolution_stft",
    "loss/multi_scale_mel",
    "loss/waveform_l1",
]


def test_every_component_has_an_entry():
    registered = components("loss/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_losses.")]


@pytest.mark.parametrize("check", LOSS_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_conformance(name, check):
    check(lookup(name).example())
