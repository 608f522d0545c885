import torch
from partita_newcomer import Newcomer


def test_newcomer_values():
    estimate, reference = torch.zeros(2, 4), torch.tensor([[0.25] * 4, [-0.75] * 4])
    assert Newcomer()(estimate, reference) == 0.5
    assert Newcomer(scale=10.0)(estimate, reference) == 5.0
