"""The benchmark helpers that add noise to latents."""

import math

import pytest
import torch
from partita_core import Latents, LatentSpec


@pytest.fixture(scope="module")
def script(benchmark_module):
    return benchmark_module("latent_noise")


def latents(values, lengths, tokens=1):
    spec = LatentSpec(values.shape[1], 8000, 10, tokens_per_frame=tokens)
    layout = torch.zeros(len(values), dtype=torch.int64)
    return Latents(values, None, torch.tensor(lengths), layout, spec)


def test_frame_rms_leaves_out_padding(script):
    values = torch.zeros(2, 3, 6)
    values[0, :, :2], values[0, :, 2:4], values[0, :, 4:] = 1, 2, 3
    values[1, :, :1], values[1, :, 2:] = 4, 9  # the second token of the only frame is zero; the rest is padding
    found = script.frame_rms(latents(values, [30, 5], tokens=2))
    torch.testing.assert_close(found, torch.tensor([1, 2, 3, 4 / math.sqrt(2)], dtype=torch.float64))


@pytest.mark.parametrize("tokens", [1, 2])
def test_noise_has_the_given_ratio_in_every_frame(script, tokens):
    torch.manual_seed(0)
    frames = 4
    values = torch.randn(1, 4000, frames * tokens) * torch.arange(1, frames + 1).repeat_interleave(tokens)
    clean = latents(values, [10 * frames], tokens)
    for snr in (20.0, 0.0, -3.0):
        noise = script.with_noise(clean, snr, seed=0).values - values
        ratio = script.frame_rms(clean) / script.frame_rms(latents(noise, [10 * frames], tokens))
        torch.testing.assert_close(20 * ratio.log10(), torch.full((frames,), snr).double(), rtol=0, atol=0.25)


def test_noise_depends_on_seed_and_key_and_scales_with_the_ratio(script):
    values = torch.ones(2, 3, 4)
    clean = latents(values, [40, 40])

    def noise(snr, seed, key):
        return script.with_noise(clean, snr, seed=seed, key=key).values - values

    assert torch.equal(script.with_noise(clean, math.inf, seed=0).values, values)
    torch.testing.assert_close(noise(0.0, 1, "a"), 10 * noise(20.0, 1, "a"), rtol=1e-4, atol=1e-5)
    assert not torch.equal(noise(0.0, 1, "a"), noise(0.0, 1, "b"))
    assert not torch.equal(noise(0.0, 1, "a"), noise(0.0, 2, "a"))
    half = script.with_noise(latents(values.bfloat16(), [40, 40]), 0.0, seed=0)
    assert half.values.dtype == torch.bfloat16
