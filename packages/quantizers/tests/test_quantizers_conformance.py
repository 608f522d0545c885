"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_testing import QUANTIZER_CHECKS

COMPONENTS = [
    "quantizer/fsq",
    "quantizer/rebottleneck",
    "quantizer/residual",
]


def test_every_component_has_an_entry():
    registered = components("quantizer/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_quantizers.")]


@pytest.mark.parametrize("check", QUANTIZER_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_conformance(name, check):
    check(lookup(name).example())
