import math

import pytest
import torch
from partita_blocks import (
    AdaptiveGroupNorm,
    AdaptiveLayerNorm,
    FrequencyGains,
    NoiseEmbedding,
    Preconditioning,
    sinusoidal_embedding,
)
from partita_core import NoiseSchedule, PartitaError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_sinusoidal_embedding_formula():
    embedded = sinusoidal_embedding(torch.tensor([[0.5, -2.0]]), 6)
    assert embedded.shape == (1, 2, 6) and embedded.dtype == torch.float64
    for i, x in enumerate((0.5, -2.0)):
        rates = [10000 ** (-k / 3) for k in range(3)]
        expected = [math.sin(x * rate) for rate in rates] + [math.cos(x * rate) for rate in rates]
        assert embedded[0, i].tolist() == pytest.approx(expected)


def test_noise_embedding_of_log_sigma():
    module = NoiseEmbedding(8)
    sigma = torch.tensor([[0.002, 1.0], [0.5, 80.0]])
    sinusoids, embedding = module(sigma)
    assert sinusoids.shape == embedding.shape == (2, 2, 8)
    torch.testing.assert_close(sinusoids, sinusoidal_embedding(sigma.log() / 4, 8).float())
    assert (embedding[0, 0] - embedding[1, 1]).abs().max() > 1e-3
    assert module.double()(sigma.double())[1].dtype == torch.float64
    assert module.bfloat16()(sigma)[1].dtype == torch.bfloat16
    with pytest.raises(PartitaError, match="is 7"):
        NoiseEmbedding(7)


def test_frequency_gains_are_initially_one():
    gains = FrequencyGains(8, 5)
    input_gains, output_gains = gains(torch.randn(3, 8))
    assert input_gains.shape == output_gains.shape == (3, 1, 5, 1)
    assert (input_gains == 1).all() and (output_gains == 1).all()
    with torch.no_grad():
        gains.gains.bias.copy_(torch.arange(10.0))
    input_gains, output_gains = gains(torch.randn(1, 8))
    assert input_gains.flatten().tolist() == [1, 2, 3, 4, 5] and output_gains.flatten().tolist() == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("channels, groups", [(4, 1), (6, 1), (16, 4), (64, 16), (128, 32), (512, 32)])
def test_group_norm_sizes(channels, groups):
    norm = AdaptiveGroupNorm(channels, condition_dim=None)
    x = 3 + 5 * torch.randn(2, channels, 6, 4)
    y = norm(x, None).unflatten(1, (groups, -1)).flatten(2)
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, groups), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(-1, correction=0), torch.ones(2, groups), rtol=1e-3, atol=0)
    assert [name for name, _ in norm.named_parameters()] == ["norm.weight"]


def test_unequal_groups_raise():
    with pytest.raises(PartitaError, match="132 .* 32"):
        AdaptiveGroupNorm(132, condition_dim=None)


def test_adaptive_norms_scale_without_shift():
    x, tokens = torch.randn(2, 8, 3, 3), torch.randn(2, 6, 8)
    group, layer = AdaptiveGroupNorm(8, condition_dim=5), AdaptiveLayerNorm(8, condition_dim=5)
    each, chunks = torch.randn(2, 5), torch.randn(2, 3, 5)
    plain = group(x, each), layer(tokens, chunks)
    torch.testing.assert_close(plain[0], group.norm(x))
    torch.testing.assert_close(plain[1], layer.norm(tokens))
    with torch.no_grad():
        for norm in (group, layer):
            norm.scale.linear.weight.normal_()
    factors = 1 + each @ group.scale.linear.weight.T
    torch.testing.assert_close(group(x, each), plain[0] * factors[:, :, None, None])
    factors = (1 + chunks @ layer.scale.linear.weight.T).repeat_interleave(2, dim=1)  # 2 tokens per chunk
    torch.testing.assert_close(layer(tokens, chunks), plain[1] * factors)


def test_adaptive_layer_norm_of_quiet_tokens():
    """Tokens of RMS 0.1 are normalized all but completely; those far below the root of the constant are not raised."""
    x = torch.randn(1, 1, 4096, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean()) / x.std(correction=0)
    norm = AdaptiveLayerNorm(4096, condition_dim=None).double()
    for level in (0.1, 1e-2, 1e-4):
        expected = level / math.sqrt(level**2 + 1e-4)
        assert float(norm(level * x, None).detach().std(correction=0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_preconditioning_is_the_identity_at_sigma_min(dtype):
    scales = Preconditioning(sigma_min=0.002, sigma_data=0.5)
    sigma = torch.tensor([0.002], dtype=dtype)
    assert scales.skip(sigma).item() == 1 and scales.output(sigma).item() == 0
    assert scales.output(torch.tensor([NoiseSchedule().sigma(0.0)], dtype=dtype)).abs().item() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scaling_restores_the_scale_of_the_data(dtype):
    deviation = torch.logspace(-4, 2, 1000, dtype=dtype)
    scales = Preconditioning(sigma_min=0.002, sigma_data=deviation)
    smallest = torch.tensor(0.002, dtype=dtype)
    assert torch.equal(scales.scaling(smallest), torch.ones_like(deviation))  # exactly, for any data
    for sigma in (0.01, 1.0, 80.0):
        noisy = (deviation.double() ** 2 + sigma**2 - 0.002**2).sqrt()
        scaled = scales.scaling(torch.tensor(sigma, dtype=dtype)).double() * noisy
        torch.testing.assert_close(scaled, deviation.double(), rtol=1e-4, atol=0)


def test_preconditioning_formulas():
    scales = Preconditioning(sigma_min=0.002, sigma_data=0.5)
    for sigma in (0.002, 0.1, 0.5, 3.0, 80.0):
        level = torch.tensor([sigma], dtype=torch.float64)
        assert scales.skip(level).item() == pytest.approx(0.25 / ((sigma - 0.002) ** 2 + 0.25))
        assert scales.output(level).item() == pytest.approx(0.5 * (sigma - 0.002) / math.sqrt(0.25 + sigma**2))
        assert scales.input(level).item() == pytest.approx(1 / math.sqrt(sigma**2 + 0.25))
