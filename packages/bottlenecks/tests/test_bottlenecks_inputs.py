"""Inputs and modes of all bottlenecks, as far as the conformance suite does not check them."""

import copy

import pytest
import torch
from partita_bottlenecks import VAE, Identity, NoiseRegularized, SigmaVAE, SoftNorm, Tanh
from partita_core import PartitaError

every = pytest.mark.parametrize("cls", [Identity, VAE, Tanh, NoiseRegularized, SigmaVAE, SoftNorm])
random = pytest.mark.parametrize("cls", [VAE, NoiseRegularized, SigmaVAE, SoftNorm])


def made(cls, dtype=torch.float32):
    torch.manual_seed(0)
    module = cls(8).to(dtype)
    return module, torch.randn(3, module.in_dim, 5, dtype=dtype)


@random
def test_training_noise_is_drawn_by_the_global_generator(cls):
    module, hidden = made(cls)
    values = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        values.append(copy.deepcopy(module)(hidden).values)
    assert torch.equal(values[0], values[2]) and not torch.equal(values[0], values[1])


@every
def test_training_without_noise_equals_eval(cls):
    module, hidden = made(cls)
    quiet = module(hidden, stochastic=False).values
    assert torch.equal(quiet, module.eval()(hidden).values)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_are_at_least_float32(cls, dtype):
    module, hidden = made(cls, dtype)
    out = module(hidden)
    expected = torch.promote_types(dtype, torch.float32)
    assert out.values.dtype == module.expand(out.values).dtype == expected
    assert {value.dtype for value in (*out.losses.values(), *out.metrics.values())} == {expected}


@every
def test_invalid_shapes_are_named(cls):
    module, hidden = made(cls)
    for wrong, numbers in (
        (torch.zeros(1, 7, 4), f"{module.in_dim} .*7"),
        (torch.zeros(module.in_dim, 4), rf"\({module.in_dim}, 4\)"),
        (hidden[..., :0], rf"\(3, {module.in_dim}, 0\)"),
    ):
        with pytest.raises(PartitaError, match=numbers):
            module(wrong)


@every
def test_arrays_are_accepted(cls):
    module, hidden = made(cls)
    expected = module.eval()(hidden, lengths=torch.tensor([5, 2, 1]))
    found = module(hidden.numpy(), lengths=[5, 2, 1])
    assert torch.equal(found.values, expected.values)
    torch.testing.assert_close(found.metrics, expected.metrics)


def test_losses_within_lengths_are_those_of_cut_items():
    """Each item counts by its number of tokens, with the statistics of its own tokens."""
    hidden, lengths = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(2)), torch.tensor([10, 6])
    bottleneck = SoftNorm(4).eval()
    alone = [bottleneck(hidden[i : i + 1, :, :n]).losses["soft_norm"].detach() for i, n in enumerate(lengths.tolist())]
    together = bottleneck(hidden, lengths=lengths).losses["soft_norm"].detach()
    assert torch.allclose(together, (10 * alone[0] + 6 * alone[1]) / 16, rtol=1e-5)


def test_two_channels_are_the_fewest_to_normalize():
    values = NoiseRegularized(2).eval()(torch.tensor([[[1.0], [3.0]]])).values
    assert torch.allclose(values, torch.tensor([[[-1.0], [1.0]]]), atol=1e-4)
    with pytest.raises(PartitaError, match="dim is 1"):
        NoiseRegularized(1)
