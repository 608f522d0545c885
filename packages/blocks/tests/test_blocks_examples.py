"""Examples in docstrings, run with their printed results compared."""

import doctest

import partita_blocks
import pytest
import torch
from partita_core import TypedModule
from torch import nn

NAMES = [name for name in partita_blocks.__all__ if ">>>" in (getattr(partita_blocks, name).__doc__ or "")]
CONTEXT = {"torch": torch, "nn": nn, "TypedModule": TypedModule, "x": torch.ones(2), "network": nn.Identity()}


@pytest.mark.parametrize("name", NAMES)
def test_docstring_example(name):
    torch.manual_seed(0)
    part = getattr(partita_blocks, name)
    test = doctest.DocTestParser().get_doctest(part.__doc__, vars(partita_blocks) | CONTEXT, name, None, None)
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(test, out=report.append).failed == 0, "".join(report)


def test_main_classes_have_examples():
    assert {"STFT", "LogMel", "WindowedTransformer", "DownStage", "Patchifier", "fuse_stages"} <= set(NAMES)
