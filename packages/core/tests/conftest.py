"""Fixtures: the dummies of `partita_testing` are registered in every test of core."""

import pytest
import torch
from partita_core import components
from partita_testing import dummies


@pytest.fixture(autouse=True)
def _dummies():
    components()  # installed packages register now, not in a registry that a test replaces
    with dummies.registered(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
