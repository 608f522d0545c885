"""Noise of hashed signs, and bands of bins."""

import pytest
import torch
from partita_blocks import Bands, hashed_signs
from partita_core import PartitaError


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_signs_look_random():
    signs = hashed_signs(latents(2, 8, 400), 64)
    assert signs.shape == (2, 64, 400) and set(signs.unique().tolist()) == {-1.0, 1.0}
    count = signs.numel()
    flat = signs.permute(0, 2, 1).reshape(-1, 64)
    assert abs(signs.mean()) < 4 / count**0.5
    for lag in (1, 2, 3):  # from frame to frame, and from bin to bin
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 4 / count**0.5
        assert abs((flat[:, lag:] * flat[:, :-lag]).mean()) < 4 / count**0.5
    assert abs((flat.mT @ flat / len(flat)).fill_diagonal_(0)).max() < 6 / len(flat) ** 0.5


def test_signs_depend_on_three_vectors_and_on_nothing_else():
    x = latents(3, 8, 20)
    signs = hashed_signs(x, 16)
    assert torch.equal(hashed_signs(x[1:2, :, 4:9], 16)[..., 1:-1], signs[1:2, :, 5:8])
    changed = x.clone()
    changed[:, :, 10] += 1
    differs = (hashed_signs(changed, 16) != signs).any(dim=1)
    assert differs[:, 9:12].all() and not differs[:, :9].any() and not differs[:, 12:].any()


@pytest.mark.parametrize("count, bins", [(1, 8), (5, 12), (40, 300), (64, 64)])
def test_bands_spread_and_average_constants(count, bins):
    bands = Bands(count, bins, 16_000)
    assert torch.allclose(bands.spread(torch.full((2, count), 3.0)), torch.full((2, bins), 3.0))
    assert torch.allclose(bands.mean(torch.full((2, bins), 3.0)), torch.full((2, count), 3.0))


def test_bands_are_in_order_and_narrow_at_low_frequencies():
    bands = Bands(20, 400, 44_100)
    index = torch.arange(400.0)
    centers = bands.mean(index)
    assert (centers.diff() > 0).all() and centers.diff()[0] < centers.diff()[-1] / 5


def test_more_bands_than_bins_raise():
    with pytest.raises(PartitaError, match="9 bands of 8 bins"):
        Bands(9, 8, 16_000)
