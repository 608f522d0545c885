"""Noise-regularized bottleneck on hidden frames like those of encoders."""

import math

import pytest
import torch
from partita_bottlenecks import NoiseRegularizedConfig

DIM, FRAMES = 64, 120


def hidden(kind):
    """Hidden frames of noise, of speech with pauses, and of silence with and without the bias of a layer."""
    torch.manual_seed(0)
    noise = torch.randn(DIM, FRAMES)
    t = torch.arange(FRAMES) / 25
    pattern = torch.sin(torch.arange(DIM)[:, None] * (0.2 + 0.1 * torch.sin(2 * math.pi * 0.7 * t)))
    syllables = torch.sin(2 * math.pi * 2 * t).clamp_min(0)
    bias = 0.1 * torch.randn(DIM, 1)
    frames = {
        "noise": noise,
        "speech": bias + syllables * pattern + 1e-3 * noise,
        "silence": bias.expand(DIM, FRAMES),
        "nothing": torch.zeros(DIM, FRAMES),
    }
    return frames[kind][None]


@pytest.fixture
def bottleneck():
    return NoiseRegularizedConfig().build(dim=DIM)


@pytest.mark.parametrize("gain_db", [-30, 0, 30])
@pytest.mark.parametrize("kind", ["noise", "speech", "silence"])
def test_frames_above_silence_have_mean_0_std_1_and_norm_8(bottleneck, kind, gain_db):
    frames = hidden(kind) * 10 ** (gain_db / 20)
    measured = frames.std(1, correction=0) >= 0.02
    assert measured.all() or gain_db == -30
    z = bottleneck.eval()(frames).values
    assert (z.mean(1).abs() < 1e-5).all()
    std, norm = z.std(1, correction=0)[measured], z.norm(dim=1)[measured]
    assert ((std - 1).abs() < 1e-3).all() and ((norm - 8).abs() < 8e-3).all()
    assert (z.square().mean(1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("kind", ["noise", "speech", "silence", "nothing"])
def test_training_and_evaluation_normalize_equally(bottleneck, kind):
    frames = hidden(kind)
    trained = bottleneck.train()(frames, stochastic=False).values
    assert torch.equal(trained, bottleneck.eval()(frames).values)
    assert torch.equal(trained, bottleneck.eval()(frames).values)
    assert torch.equal(bottleneck.expand(trained), trained)


def test_noise_is_added_in_training_only(bottleneck):
    frames = hidden("speech").expand(200, -1, -1)
    torch.manual_seed(1)
    noise = bottleneck.train()(frames).values - bottleneck.eval()(frames).values
    assert not torch.equal(noise[0], noise[1])
    torch.testing.assert_close(noise.square().mean(), torch.tensor(1 / 3), rtol=0.15, atol=0)  # gamma^2 / 3: -4.8 dB
    assert noise.mean().abs() < 0.01


@pytest.mark.parametrize("training", [True, False])
def test_frames_are_independent(bottleneck, training):
    frames = hidden("speech").clone().requires_grad_()
    bottleneck.train(training)
    z = bottleneck(frames, stochastic=False).values
    (gradient,) = torch.autograd.grad(z[0, :, 40].square().dot(torch.arange(DIM).float()), frames)
    assert gradient[0, :, 40].any()
    assert not gradient[0, :, :40].any() and not gradient[0, :, 41:].any()
    other = frames.detach().clone()
    other[:, :, 41:] = 100 * torch.randn(1, DIM, FRAMES - 41)
    assert torch.equal(bottleneck(other, stochastic=False).values[..., :41], z[..., :41].detach())


@pytest.mark.parametrize("level", [0.0, 1e-12, 1e-6, 1e-5, 1.0])
def test_digital_silence_has_finite_values_and_gradients(bottleneck, level):
    constant = torch.full((1, DIM, 3), 0.3)
    frames = (constant + level * hidden("noise")[..., :3]).requires_grad_()
    z = bottleneck.train()(frames, stochastic=False).values
    assert z.isfinite().all() and (z.square().mean(1).sqrt() <= 1 + 1e-6).all()
    (z * torch.randn_like(z)).sum().backward()
    assert frames.grad.isfinite().all()
