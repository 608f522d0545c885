import math

import pytest
import torch
from partita.evaluation import channel_balance, frame_rms, latent_statistics, latent_vectors, with_noise
from partita_core import Latents, LatentSpec, PartitaError


def latents(values, lengths, tokens=1):
    spec = LatentSpec(values.shape[1], 8000, 10, tokens_per_frame=tokens)
    layout = torch.zeros(len(values), dtype=torch.int64)
    return Latents(values, None, torch.tensor(lengths), layout, spec)


def test_frames_are_those_of_each_item_and_hold_their_tokens():
    values = torch.zeros(2, 3, 6)
    values[0, :, :2], values[0, :, 2:4], values[0, :, 4:] = 1, 2, 3
    values[1, :, :1], values[1, :, 2:] = 4, 9  # the second token of the only frame is zero; the rest is padding
    found = frame_rms(latents(values, [30, 5], tokens=2))
    torch.testing.assert_close(found, torch.tensor([1, 2, 3, 4 / math.sqrt(2)], dtype=torch.float64))
    vectors = latent_vectors(latents(values, [30, 5], tokens=2))
    assert vectors.shape == (8, 3) and vectors[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 0]


@pytest.mark.parametrize("tokens", [1, 2])
def test_noise_is_as_strong_as_is_said_in_every_frame(tokens):
    torch.manual_seed(0)
    frames = 4
    values = torch.randn(1, 4000, frames * tokens) * torch.arange(1, frames + 1).repeat_interleave(tokens)
    clean = latents(values, [10 * frames], tokens)
    for snr in (20.0, 0.0, -3.0):
        noise = with_noise(clean, snr, seed=0).values - values
        ratio = frame_rms(clean) / frame_rms(latents(noise, [10 * frames], tokens))
        torch.testing.assert_close(20 * ratio.log10(), torch.full((frames,), snr).double(), rtol=0, atol=0.25)


def test_noise_depends_on_seed_and_key_and_only_its_size_on_the_ratio():
    values = torch.ones(2, 3, 4)
    clean = latents(values, [40, 40])

    def noise(snr, seed, key):
        return with_noise(clean, snr, seed=seed, key=key).values - values

    assert torch.equal(with_noise(clean, math.inf, seed=0).values, values)
    torch.testing.assert_close(noise(0.0, 1, "a"), 10 * noise(20.0, 1, "a"), rtol=1e-4, atol=1e-5)
    assert not torch.equal(noise(0.0, 1, "a"), noise(0.0, 1, "b"))
    assert not torch.equal(noise(0.0, 1, "a"), noise(0.0, 2, "a"))
    half = with_noise(latents(values.bfloat16(), [40, 40]), 0.0, seed=0)
    assert half.values.dtype == torch.bfloat16


def test_balance_of_channels_that_are_known():
    torch.manual_seed(0)
    even = torch.randn(20_000, 8, dtype=torch.float64)
    found = channel_balance(even + 5)
    assert found.effective_rank == pytest.approx(8, rel=1e-3) and found.dead == 0
    assert found.kurtosis == pytest.approx(0, abs=0.05)
    assert found.rms == pytest.approx(math.sqrt(26), rel=1e-2)
    assert 0.95 < found.variance_min < 1 < found.variance_max < 1.05
    spread = channel_balance(even * torch.tensor([3.0, 1, 0, 1e-3, 0, 0, 0, 0]))
    assert spread.dead == 6
    assert spread.variance_max == pytest.approx(8 * 0.9, rel=0.02)
    assert spread.effective_rank == pytest.approx(math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1)), rel=0.02)


def test_normalised_frames_have_one_direction_less_than_channels():
    torch.manual_seed(0)
    frames = torch.randn(5000, 16)
    frames = frames - frames.mean(1, keepdim=True)
    assert channel_balance(frames).effective_rank == pytest.approx(15, rel=1e-2)


def test_two_values_have_the_least_kurtosis():
    assert channel_balance(torch.tensor([[1.0], [-1.0]]).repeat(10, 1)).kurtosis == -2


def test_nothing_that_varies_is_refused():
    with pytest.raises(PartitaError, match="1 latent vectors"):
        channel_balance(torch.ones(1, 4))
    with pytest.raises(PartitaError, match="have no variance"):
        channel_balance(torch.ones(5, 4))


def test_statistics_of_each_channel_and_direction():
    torch.manual_seed(0)
    vectors = torch.zeros(30_000, 3, dtype=torch.float64)
    vectors[:, 0] = 2 * torch.randn(30_000)
    vectors[:, 1] = torch.rand(30_000) * math.sqrt(12)  # uniform: variance 1, excess kurtosis -1.2
    found = latent_statistics(vectors)
    assert found.std == pytest.approx((2, 1, 0), rel=0.02)
    assert found.spectrum == pytest.approx((0.8, 0.2, 0), abs=0.01) and sum(found.spectrum) == pytest.approx(1)
    assert found.kurtosis[:2] == pytest.approx((0, -1.2), abs=0.1) and found.kurtosis[2] is None
    assert found.balance == channel_balance(vectors) and found.vectors == 30_000
