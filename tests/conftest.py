"""Fixtures of the tests of the whole repository."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def benchmark_module():
    """Import a module of `benchmarks/` by name; its siblings can be imported while tests run."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)
