"""Loudness loss: bands, masking, asymmetry, levels."""

import math

import pytest
import torch
from partita_core import PartitaError
from partita_losses import Loudness

RATE = 16_000


def tone(frequency: float, level: float = 0.1) -> torch.Tensor:
    return level * (2 * math.pi * frequency * torch.arange(RATE, dtype=torch.float64) / RATE).sin()[None, None]


def noise(level: float, seed: int = 0) -> torch.Tensor:
    return level * torch.randn(1, 1, RATE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_loudness_bands_cover_all_bins_from_60_hz_once(rate):
    loss = Loudness(rate)
    shares = loss._bands.exact.sum(1)
    frequencies = torch.arange(len(shares)) * rate / loss.stft.n_fft
    inside = (frequencies > 100) & (frequencies < rate / 2 - rate / loss.stft.n_fft)
    torch.testing.assert_close(shares[inside], torch.ones_like(shares[inside]))
    assert (shares[frequencies < 40] == 0).all()


def test_loudness_has_bands_of_half_a_bark():
    assert Loudness(RATE)._bands.exact.shape == (257, 44)  # 60 Hz to 8 kHz are 22 Bark


def test_loudness_ignores_what_is_masked():
    """A small difference of level within the dead zone costs nothing; a larger one does."""
    target = noise(0.1)
    loss = Loudness(RATE)
    assert float(loss(1.1 * target, target)) < 1e-9
    assert float(loss(3 * target, target)) > 1
    # A quiet tone in the band of a loud one is masked, and is not where the target is quiet.
    near, far = tone(1010.0, 0.005), tone(4000.0, 0.005)
    values = [float(loss(tone(1000.0) + added, tone(1000.0))) for added in (near, far)]
    assert values[0] < 0.1 * values[1]


def test_loudness_of_added_sound_costs_more_than_of_missing_sound():
    target = noise(0.1)
    both = target + tone(2000.0, 0.2)
    symmetric = Loudness(RATE, asymmetry_weight=0.0)
    extra = {
        name: float(Loudness(RATE, asymmetry_weight=1.0)(y, x) - symmetric(y, x))
        for name, y, x in (("added", both, target), ("missing", target, both))
    }
    assert extra["added"] > 1 and extra["missing"] < 0.01 * extra["added"]


def test_loudness_depends_on_the_level_relative_to_the_target_only():
    loss = Loudness(RATE)
    target, prediction = noise(0.1), noise(0.1) + noise(0.05, seed=1)
    quiet = float(loss(0.1 * prediction, 0.1 * target))
    assert quiet == pytest.approx(float(loss(prediction, target)), rel=1e-6)


def test_loudness_is_a_mean_over_channels():
    loss = Loudness(RATE)
    target, prediction = noise(0.1), 0.3 * noise(0.1)
    pair = loss(torch.cat([prediction, target], dim=1), torch.cat([target, target], dim=1))
    assert float(pair) == pytest.approx(float(loss(prediction, target)) / 2, rel=1e-6)


def test_loudness_needs_a_sample_rate():
    with pytest.raises(PartitaError, match=r"200 Hz.* 240 Hz"):
        Loudness(200)
