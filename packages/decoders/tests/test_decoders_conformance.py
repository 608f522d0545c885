"""Every component of this package against the suite of its role: one entry each."""

import pytest
from partita_core import components, lookup
from partita_testing import DECODER_CHECKS

COMPONENTS = [
    "decoder/consistency",
    "decoder/genae",
    "decoder/oobleck",
    "decoder/spectrostream",
]


def test_every_component_has_an_entry():
    registered = components("decoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_decoders.")]


@pytest.mark.parametrize("check", DECODER_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_conformance(name, check):
    check(lookup(name).example())
