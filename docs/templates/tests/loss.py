import pytest
import torch
from partita_newcomer import Newcomer


def test_newcomer_of_a_constant_difference():
    """The first sample has no predecessor; each other one leaves 1 - emphasis of the difference."""
    target = torch.randn(1, 2, 5)
    assert Newcomer(emphasis=0.75)(target + 2, target).item() == pytest.approx((2 + 4 * 0.5) / 5, rel=1e-5)
    assert Newcomer(emphasis=0.0)(target + 2, target).item() == pytest.approx(2, rel=1e-5)


def test_newcomer_ignores_padding():
    prediction, target = torch.zeros(1, 1, 4), torch.tensor([[[1.0, 1.0, 9.0, 9.0]]])
    assert Newcomer(emphasis=0.5)(prediction, target, lengths=[2]).item() == 0.75
