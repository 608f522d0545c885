"""Examples in docstrings that need no language model from the hub, run with their printed results compared."""

import doctest

import partita_representation
import pytest
import torch
from partita_core import LatentSpec

CONTEXT = {"torch": torch, "LatentSpec": LatentSpec}


@pytest.mark.parametrize("name", ["CausalRepresentation", "RQMTP", "RandomProjectionQuantizer", "SwiGLUAdapter"])
def test_docstring_example(name):
    part = getattr(partita_representation, name)
    test = doctest.DocTestParser().get_doctest(part.__doc__, vars(partita_representation) | CONTEXT, name, None, None)
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert result.attempted > 0 and result.failed == 0, "".join(report)
