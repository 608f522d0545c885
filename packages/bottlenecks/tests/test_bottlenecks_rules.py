"""Formulas and invariants of each bottleneck."""

import math

import pytest
import torch
from partita_bottlenecks import (
    VAE,
    Identity,
    NoiseRegularized,
    NoiseRegularizedConfig,
    SigmaVAE,
    SigmaVAEConfig,
    SoftNorm,
    SoftNormConfig,
    Tanh,
    TanhConfig,
    VAEConfig,
)
from partita_core import PartitaError


def test_identity_returns_its_input():
    hidden = torch.randn(2, 4, 3)
    assert torch.equal(Identity(4)(hidden).values, hidden)


# --- VAE


def test_vae_kl_is_twice_the_divergence_summed_over_channels():
    torch.manual_seed(0)
    bottleneck = VAEConfig().build(dim=6)
    hidden = torch.randn(3, 12, 5, dtype=torch.float64)
    mean, scale = hidden[:, :6], hidden[:, 6:]
    std = torch.log1p(scale.exp()) + 1e-4
    posterior = torch.distributions.Normal(mean, std)
    unit = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(std))
    expected = 2 * torch.distributions.kl_divergence(posterior, unit).sum(1).mean()
    out = bottleneck(hidden)
    torch.testing.assert_close(out.losses["kl"], expected)
    torch.testing.assert_close(out.metrics["kl_per_channel"], expected / 6)
    assert bottleneck.loss_weights == {"kl": 1e-4}
    assert bottleneck.in_dim == 12


def test_vae_samples_its_posterior_and_returns_the_mean_in_eval():
    torch.manual_seed(0)
    bottleneck = VAE(2, kl_weight=1.0, min_std=1e-30)
    scale = math.log(math.expm1(0.5))  # softplus of it is 0.5
    hidden = torch.tensor([3.0, -1.0, scale, scale]).view(1, 4, 1).expand(1, 4, 20000)
    values = bottleneck(hidden).values[0]
    torch.testing.assert_close(values.mean(1), torch.tensor([3.0, -1.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(values.std(1), torch.tensor([0.5, 0.5]), rtol=0.03, atol=0)
    assert torch.equal(bottleneck.eval()(hidden).values, hidden[:, :2])


def test_vae_in_eval_samples_its_posterior_on_request():
    torch.manual_seed(0)
    bottleneck = VAEConfig().build(dim=2).eval().requires_grad_(False)
    hidden = torch.randn(3, 4, 20000)
    mean, std = bottleneck.posterior(hidden)
    assert torch.equal(mean, hidden[:, :2]) and torch.equal(mean, bottleneck(hidden).values)
    torch.testing.assert_close(std, torch.log1p(hidden[:, 2:].exp()) + 1e-4)
    for values in (bottleneck(hidden, stochastic=True).values, bottleneck.posterior(hidden).sample(3)):
        normalized = (values - mean) / std
        torch.testing.assert_close(normalized.mean((0, 2)), torch.zeros(2), rtol=0, atol=0.02)
        torch.testing.assert_close(normalized.std((0, 2)), torch.ones(2), rtol=0.02, atol=0)


def test_posterior_sample_depends_on_its_seed_only():
    torch.manual_seed(0)
    posterior = VAEConfig().build(dim=2).eval().posterior(torch.randn(3, 4, 7))
    before = torch.get_rng_state()
    samples = posterior.sample([5, 6, 5])
    assert torch.equal(before, torch.get_rng_state())
    for i, seed in enumerate((5, 6, 5)):
        alone = type(posterior)(posterior.mean[i : i + 1], posterior.std[i : i + 1]).sample(seed)
        assert torch.equal(alone, samples[i : i + 1])
    noise = (samples - posterior.mean) / posterior.std
    torch.testing.assert_close(noise[0], noise[2])
    assert (noise[0] - noise[1]).abs().min() > 0


@pytest.mark.parametrize("config", [VAEConfig(), NoiseRegularizedConfig(), SigmaVAEConfig(), SoftNormConfig()])
def test_stochastic_eval_adds_noise_and_keeps_state(config):
    torch.manual_seed(0)
    bottleneck = config.build(dim=4).eval()
    hidden = torch.randn(2, bottleneck.in_dim, 30)
    state = {name: tensor.clone() for name, tensor in bottleneck.state_dict().items()}
    clean, noisy = bottleneck(hidden).values, bottleneck(hidden, stochastic=True).values
    assert (noisy - clean).square().mean() > 1e-4 * clean.square().mean()
    assert all(torch.equal(state[name], tensor) for name, tensor in bottleneck.state_dict().items())


def test_noise_regularized_projects_to_the_sphere():
    torch.manual_seed(0)
    bottleneck = NoiseRegularizedConfig().build(dim=8)
    values = bottleneck.project(3 * torch.randn(2, 8, 5) + 1)
    torch.testing.assert_close(values.mean(1), torch.zeros(2, 5), rtol=0, atol=1e-6)
    torch.testing.assert_close(values.norm(dim=1), torch.full((2, 5), 8**0.5), rtol=1e-4, atol=0)
    encoded = bottleneck.eval()(torch.randn(2, 8, 5)).values
    torch.testing.assert_close(bottleneck.project(encoded), encoded, rtol=0, atol=1e-4)


def test_vae_with_collapsed_scale_is_finite():
    hidden = torch.full((1, 4, 3), -300.0, requires_grad=True)
    out = VAEConfig().build(dim=2)(hidden)
    out.losses["kl"].backward()
    assert out.losses["kl"].isfinite()
    assert hidden.grad.isfinite().all()


# --- Tanh


def test_tanh_normalizes_each_vector_to_the_gain():
    torch.manual_seed(0)
    bottleneck = TanhConfig().build(dim=16)
    hidden = 100 * torch.randn(2, 16, 5)
    out = bottleneck(hidden)
    rms = out.values.atanh().square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.full_like(rms, 0.5), rtol=1e-4, atol=0)
    torch.testing.assert_close(out.metrics["pre_tanh_rms"], torch.tensor(0.5), rtol=1e-4, atol=0)
    assert bottleneck.gain.shape == (1,)
    assert out.losses == {}


def test_tanh_metrics_report_saturation():
    bottleneck = Tanh(4, gain=None)
    hidden = torch.tensor([0.0, 1.0, 5.0, -50.0]).view(1, 4, 1).expand(1, 4, 6)
    metrics = bottleneck(hidden).metrics
    assert metrics["saturated_fraction"] == 0.5
    assert metrics["channel_std_min"] == metrics["channel_std_mean"] == 0
    assert metrics["pre_tanh_rms"] > 25


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_values_are_strictly_inside_the_bounds(dtype):
    bottleneck = Tanh(2, gain=None).to(dtype)
    values = bottleneck(torch.tensor([-1e4, 1e4], dtype=dtype).view(1, 2, 1)).values
    assert bottleneck.bounded
    assert values.abs().max() < 1
    assert values.atanh().isfinite().all()


def test_tanh_hinge_is_the_mean_excess_over_3():
    bottleneck = Tanh(2, gain=None, hinge_weight=1e-3)
    out = bottleneck(torch.tensor([-5.0, 2.0]).view(1, 2, 1))
    torch.testing.assert_close(out.losses["hinge"], torch.tensor(1.0))  # (2 + 0) / 2
    assert bottleneck.loss_weights == {"hinge": 1e-3}


# --- NoiseRegularized


def signals(dim=64, frames=200):
    torch.manual_seed(0)
    tone = torch.sin(torch.arange(dim)[:, None] * 0.3 + torch.arange(frames)[None] * 0.05)
    return {"noise": torch.randn(dim, frames), "tone": tone, "offset": 5 + 0.1 * torch.randn(dim, frames)}


@pytest.mark.parametrize("gain_db", [-30, 0, 30])
@pytest.mark.parametrize("name", ["noise", "tone", "offset"])
@pytest.mark.parametrize("training", [True, False])
def test_noise_regularized_normalizes_every_frame(name, gain_db, training):
    bottleneck = NoiseRegularizedConfig().build(dim=64).train(training)
    hidden = signals()[name][None] * 10 ** (gain_db / 20)
    z = bottleneck(hidden, stochastic=False).values
    scaled = hidden.std(1, correction=0) >= 0.02
    assert scaled.any() or (name, gain_db) == ("offset", -30)
    assert (z.mean(1)[scaled].abs() < 1e-5).all()
    std = z.std(1, correction=0)[scaled]
    assert ((std > 0.999) & (std < 1.001)).all()
    assert ((z.norm(dim=1)[scaled] - 8).abs() < 8e-3).all()


def test_noise_regularized_near_silence():
    bottleneck = NoiseRegularizedConfig().build(dim=64).eval()
    assert (bottleneck(torch.full((1, 64, 3), 0.7)).values.square().mean(1).sqrt() <= 1).all()
    torch.manual_seed(0)
    frame = torch.randn(1, 64, 1)
    frame = (frame - frame.mean()) / frame.std(correction=0)
    for std, expected in ((1e-5, 0.5), (1e-6, 1 / 11)):
        assert bottleneck(frame * std).metrics["latent_rms"].item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("per_frame", [False, True])
def test_noise_regularized_amplitudes_are_uniform(per_frame):
    torch.manual_seed(0)
    bottleneck = NoiseRegularizedConfig(gamma=0.8, per_frame=per_frame).build(dim=256)
    hidden = torch.randn(400, 256, 4)
    noise = bottleneck(hidden).values - bottleneck(hidden, stochastic=False).values
    alpha = noise.std(1)  # (examples, frames), each estimated from 256 draws
    assert abs(alpha.mean().item() - 0.4) < 0.03
    assert alpha.max() < 0.8 * 1.2
    assert abs((alpha < 0.2).float().mean().item() - 0.25) < 0.06
    spread = (alpha.std(1) / alpha.mean(1)).mean()
    assert (spread > 0.3) == per_frame


def test_noise_regularized_invalid_settings():
    with pytest.raises(PartitaError, match="gamma is -1"):
        NoiseRegularizedConfig(gamma=-1)
    with pytest.raises(PartitaError, match="dim is 1"):
        NoiseRegularized(1)


# --- SigmaVAE


def test_sigma_vae_draws_one_amplitude_per_example():
    torch.manual_seed(0)
    bottleneck = SigmaVAE(64, sigma=0.625, kl_weight=0.1)
    hidden = torch.zeros(600, 64, 8)
    values = bottleneck(hidden).values
    assert abs(values.std().item() - 0.625) < 0.04
    per_example = values.std(dim=(1, 2))
    assert (values[:, :, :4].std(dim=(1, 2)) / per_example - 1).abs().max() < 0.2
    # |s| of a normal s: its mean is sqrt(2 / pi) of the standard deviation
    assert abs(per_example.mean().item() - 0.625 * math.sqrt(2 / math.pi)) < 0.04


def test_sigma_vae_loss_is_the_mean_square():
    bottleneck = SigmaVAE(2, sigma=0.625, kl_weight=0.1)
    out = bottleneck(torch.tensor([3.0, 1.0]).view(1, 2, 1))
    assert out.losses["kl"] == 5
    assert bottleneck.loss_weights == {"kl": 0.1}


# --- SoftNorm


def test_soft_norm_expands_normalized_values():
    torch.manual_seed(0)
    bottleneck = SoftNormConfig().build(dim=8)
    bottleneck.running_std.fill_(4.0)
    bottleneck.eval()
    hidden = 4 * torch.randn(2, 8, 50)
    out = bottleneck(hidden)
    torch.testing.assert_close(out.values, hidden / 4)
    torch.testing.assert_close(bottleneck.expand(out.values), hidden)


def test_soft_norm_noise_is_relative_to_the_running_std():
    torch.manual_seed(0)
    bottleneck = SoftNormConfig(decay=1.0).build(dim=8)
    bottleneck.running_std.fill_(4.0)
    hidden = 4 * torch.randn(4, 8, 2000)
    noise = bottleneck.expand(bottleneck(hidden).values) - hidden
    assert noise.std().item() == pytest.approx(0.05 * 4, rel=0.02)


def test_soft_norm_running_std_follows_the_affine_map():
    torch.manual_seed(0)
    bottleneck = SoftNormConfig(decay=0.9).build(dim=8)
    with torch.no_grad():
        bottleneck.scale.fill_(2.0)
        bottleneck.bias.fill_(7.0)
    hidden = 3 * torch.randn(4, 8, 100)
    expected = torch.ones(1)
    for _ in range(3):
        bottleneck(hidden)
        expected = 0.9 * expected + 0.1 * (2 * hidden).std(correction=0)
    torch.testing.assert_close(bottleneck.running_std, expected, rtol=1e-5, atol=0)


def test_soft_norm_loss_is_zero_at_unit_statistics():
    bottleneck = SoftNorm(2, noise=0.0, decay=1.0, weight=1e-5, frame_weight=0.4).double().eval()
    # over time and over channels alike: mean 0, variance 1
    unit = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)[None]
    assert abs(bottleneck(unit).losses["soft_norm"].item()) < 1e-5
    for changed in (2 * unit, unit + 1, unit / 2):
        assert bottleneck(changed).losses["soft_norm"] > 0.1
    variance, mean = 4.0, 0.0
    expected = 1.4 * (mean**2 + variance - math.log(variance) - 1)
    assert bottleneck(2 * unit).losses["soft_norm"].item() == pytest.approx(expected, rel=1e-5)
