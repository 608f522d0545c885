"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_testing import ENCODER_CHECKS

COMPONENTS = [
    "encoder/genae",
    "encoder/oobleck",
    "encoder/spectrostream",
    "encoder/summary",
]


def test_every_component_has_an_entry():
    registered = components("encoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_encoders.")]


@pytest.mark.parametrize("check", ENCODER_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_conformance(name, check):
    check(lookup(name).example())
