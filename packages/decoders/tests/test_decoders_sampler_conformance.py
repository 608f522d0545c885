"""Conformance of every sampler, with one entry per component."""

import pytest
from partita_core import components, lookup
from partita_testing import SAMPLER_CHECKS

COMPONENTS = [
    "sampler/autoregressive",
    "sampler/independent",
    "sampler/overlap",
    "sampler/parallel",
    "sampler/two_step",
]


def test_list_of_components_is_complete():
    registered = components("sampler/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_decoders.")]


@pytest.mark.parametrize("check", SAMPLER_CHECKS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_sampler_conformance(name, check):
    check(lookup(name).example())
