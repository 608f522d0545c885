"""Conformance of every encoder, with one entry per component."""

import pytest
from partita_core import components, lookup
from partita_testing import ENCODER_CHECKS

COMPONENTS = [
    "encoder/genae",
    "encoder/linear",
    "encoder/linear_path",
    "encoder/oobleck",
    "encoder/spectrostream",
    "encoder/summary",
]


def test_list_of_components_is_complete():
    registered = components("encoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_encoders.")]


@pytest.mark.parametrize("check", ENCODER_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_encoder_conformance(name, check):
    check(lookup(name).example())
