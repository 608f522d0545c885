import torch
from partita_newcomer import Newcomer


def test_newcomer_rounds_to_the_nearest_level():
    quantizer = Newcomer(2, levels=3).eval()
    output = quantizer(torch.tensor([[[-2.0, 0.4], [0.6, 0.0]]]))
    assert output.codes.tolist() == [[[0, 1], [2, 1]]]
    assert output.values.tolist() == [[[-1.0, 0.0], [1.0, 0.0]]]


def test_newcomer_decodes_missing_codes_to_zero():
    assert Newcomer(2, levels=2).codes_to_values(torch.tensor([[[-1], [0]]])).tolist() == [[[0.0], [-1.0]]]
