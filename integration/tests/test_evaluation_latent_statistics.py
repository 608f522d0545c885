import math

import pytest
import torch
from partita.evaluation import latent_statistics, latent_vectors
from partita_core import Latents, LatentSpec, PartitaError


def latents(values, lengths, tokens=1):
    spec = LatentSpec(values.shape[1], 8000, 10, tokens_per_frame=tokens)
    layout = torch.zeros(len(values), dtype=torch.int64)
    return Latents(values, None, torch.tensor(lengths), layout, spec)


def test_latent_vectors_leave_out_padding():
    values = torch.zeros(2, 3, 6)
    values[0, :, :2], values[0, :, 2:4], values[0, :, 4:] = 1, 2, 3
    values[1, :, :1], values[1, :, 2:] = 4, 9  # the second token of the only frame is zero; the rest is padding
    vectors = latent_vectors(latents(values, [30, 5], tokens=2))
    assert vectors.shape == (8, 3) and vectors[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 0]


def test_balance_of_known_channels():
    torch.manual_seed(0)
    even = torch.randn(20_000, 8, dtype=torch.float64)
    found = latent_statistics(even + 5).balance
    assert found.effective_rank == pytest.approx(8, rel=1e-3) and found.dead == 0
    assert found.kurtosis == pytest.approx(0, abs=0.05)
    assert found.rms == pytest.approx(math.sqrt(26), rel=1e-2)
    assert 0.95 < found.variance_min < 1 < found.variance_max < 1.05
    spread = latent_statistics(even * torch.tensor([3.0, 1, 0, 1e-3, 0, 0, 0, 0])).balance
    assert spread.dead == 6
    assert spread.variance_max == pytest.approx(8 * 0.9, rel=0.02)
    assert spread.effective_rank == pytest.approx(math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1)), rel=0.02)


def test_effective_rank_of_zero_mean_frames():
    torch.manual_seed(0)
    frames = torch.randn(5000, 16)
    frames = frames - frames.mean(1, keepdim=True)
    assert latent_statistics(frames).balance.effective_rank == pytest.approx(15, rel=1e-2)


def test_kurtosis_of_two_values_is_minus_two():
    assert latent_statistics(torch.tensor([[1.0], [-1.0]]).repeat(10, 1)).balance.kurtosis == -2


def test_statistics_need_variance():
    with pytest.raises(PartitaError, match="1 latent vectors"):
        latent_statistics(torch.ones(1, 4))
    with pytest.raises(PartitaError, match="5 latent vectors"):
        latent_statistics(torch.ones(5, 4))


def test_statistics_per_channel_and_direction():
    torch.manual_seed(0)
    vectors = torch.zeros(30_000, 3, dtype=torch.float64)
    vectors[:, 0] = 2 * torch.randn(30_000)
    vectors[:, 1] = torch.rand(30_000) * math.sqrt(12)  # uniform: variance 1, excess kurtosis -1.2
    found = latent_statistics(vectors)
    assert found.std == pytest.approx((2, 1, 0), rel=0.02)
    assert found.spectrum == pytest.approx((0.8, 0.2, 0), abs=0.01) and sum(found.spectrum) == pytest.approx(1)
    assert found.kurtosis[:2] == pytest.approx((0, -1.2), abs=0.1) and found.kurtosis[2] is None
    assert found.balance == latent_statistics(vectors).balance and found.vectors == 30_000
