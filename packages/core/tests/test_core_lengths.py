"""Masks and statistics of batches of unequal items."""

import math

import torch
from partita_core import LatentSpec, codes_within, length_mask, mean_within, tokens_within, update_average

LENGTHS = torch.tensor([3, 1])
X = torch.tensor([[[1.0, 2.0, 3.0, 99.0]], [[4.0, 99.0, 99.0, 99.0]]])  # (2, 1, 4), with 99 after the ends


def test_length_mask_is_true_before_the_end():
    assert length_mask(LENGTHS, 4).tolist() == [[True, True, True, False], [True, False, False, False]]
    assert length_mask(torch.tensor([0, 7]), 2).tolist() == [[False, False], [True, True]]


def test_statistics_exclude_padding():
    assert tokens_within(X, LENGTHS).tolist() == [[1.0], [2.0], [3.0], [4.0]]
    assert tokens_within(X, None).shape == (8, 1)
    assert mean_within(X[:, 0], LENGTHS) == 2.5
    assert mean_within(X[:, 0], None) == X.mean()


def test_nonfinite_padding_gets_no_gradient():
    x = X[:, 0].clone()
    x[0, 3] = math.inf
    x.requires_grad_()
    mean_within(x, LENGTHS).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.25, 0.25, 0.25, 0.0], [0.25, 0.0, 0.0, 0.0]]


def test_codes_of_padding_are_minus_one():
    codes = torch.arange(8).view(2, 1, 4)
    assert codes_within(codes, LENGTHS).tolist() == [[[0, 1, 2, -1]], [[4, -1, -1, -1]]]
    assert codes_within(codes, None) is codes


def test_tokens_cover_samples():
    spec = LatentSpec(4, 8000, 100, 3)
    assert spec.tokens(torch.tensor([1, 100, 101])).tolist() == [3, 3, 6]


def test_update_average_ignores_nonfinite_elements():
    running = torch.tensor([1.0, 1.0, 1.0])
    update_average(running, torch.tensor([3.0, math.inf, math.nan]), 0.5)
    assert running.tolist() == [2.0, 1.0, 1.0]
