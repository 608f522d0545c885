"""Every representation encoder of this package against the suite of its role: one entry each."""

import pytest
from partita_core import LatentSpec, components, lookup
from partita_representation import CausalRepresentationConfig
from partita_testing import REPRESENTATION_CHECKS, RepresentationCase

COMPONENTS = [
    "representation/causal_transformer",
]
WHOLE_PAST = CausalRepresentationConfig(width=16, layers=2, heads=2, mlp_ratio=2)
CASES = {
    "all of the past": RepresentationCase(WHOLE_PAST),
    "one token a frame": RepresentationCase(WHOLE_PAST, LatentSpec(4, 8000, 16)),
}


def test_every_component_has_an_entry():
    registered = components("representation/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_representation.")]


@pytest.mark.parametrize("check", REPRESENTATION_CHECKS)
@pytest.mark.parametrize("name", [*COMPONENTS, *CASES])
def test_conformance(name, check):
    check(CASES[name] if name in CASES else lookup(name).example())
