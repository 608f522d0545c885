import torch
from partita_newcomer import Newcomer


def test_newcomer_shapes():
    (output,) = Newcomer(2, layers=3, channels=8)(torch.randn(5, 2, 640))
    assert output.logits.shape == (5, 1, 10)
    assert [tuple(feature.shape) for feature in output.features] == [(5, 8, 160), (5, 8, 40), (5, 8, 10)]
