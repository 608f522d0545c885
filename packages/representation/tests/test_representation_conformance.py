"""Conformance suite of the representation role, for every encoder of this package."""

import pytest
from partita_core import LatentSpec, components, lookup
from partita_representation import CausalRepresentationConfig
from partita_testing import REPRESENTATION_CHECKS, RepresentationCase

COMPONENTS = [
    "representation/causal_transformer",
]
UNBOUNDED = CausalRepresentationConfig(width=16, layers=2, heads=2, mlp_ratio=2)
CASES = {
    "unbounded past": RepresentationCase(UNBOUNDED),
    "one token per frame": RepresentationCase(UNBOUNDED, LatentSpec(4, 8000, 16)),
}


def test_every_component_is_tested():
    registered = components("representation/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_representation.")]


def case(name, check):
    """Exports take seconds; one is in the default suite."""
    slow = check.__name__ == "exports" and name in CASES
    return pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    "name, check", [case(name, check) for name in [*COMPONENTS, *CASES] for check in REPRESENTATION_CHECKS]
)
def test_conformance(name, check):
    check(CASES[name] if name in CASES else lookup(name).example())
