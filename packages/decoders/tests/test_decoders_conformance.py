"""Conformance of every decoder, with one entry per component."""

import pytest
from partita_core import components, lookup
from partita_testing import DECODER_CHECKS

COMPONENTS = [
    "decoder/consistency",
    "decoder/genae",
    "decoder/linear",
    "decoder/linear_path",
    "decoder/oobleck",
    "decoder/spectrostream",
]


def test_list_of_components_is_complete():
    registered = components("decoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_decoders.")]


@pytest.mark.parametrize("check", DECODER_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_decoder_conformance(name, check):
    check(lookup(name).example())
