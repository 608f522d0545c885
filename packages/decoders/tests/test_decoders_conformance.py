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
SLOW_TO_EXPORT = {"decoder/consistency", "decoder/genae", "decoder/spectrostream"}


def test_list_of_components_is_complete():
    registered = components("decoder/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_decoders.")]


def case(name, check):
    """Exporting takes seconds: in the default suite, one component of this package stands for all."""
    slow = check.__name__ == "exports" and name in SLOW_TO_EXPORT
    return pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("name, check", [case(name, check) for name in COMPONENTS for check in DECODER_CHECKS])
def test_decoder_conformance(name, check):
    check(lookup(name).example())
