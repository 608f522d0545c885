"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_testing import BOTTLENECK_CHECKS

COMPONENTS = [
    "bottleneck/adaptive",
    "bottleneck/identity",
    "bottleneck/noise_regularized",
    "bottleneck/sigma_vae",
    "bottleneck/soft_norm",
    "bottleneck/tanh",
    "bottleneck/vae",
]


def test_every_component_has_an_entry():
    registered = components("bottleneck/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_bottlenecks.")]


@pytest.mark.parametrize("check", BOTTLENECK_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_conformance(name, check):
    check(lookup(name).example())
