"""Inputs, precision and gradients of all quantizers, as far as the conformance suite does not check them."""

import copy

import pytest
import torch
from partita_core import PartitaError
from partita_quantizers import FSQ, ResidualVQ

QUANTIZERS = {
    "residual": lambda: ResidualVQ(8, num_quantizers=3, codebook_size=16, codebook_dim=4),
    "residual_plain": lambda: ResidualVQ(8, num_quantizers=3, codebook_size=16, codebook_dim=None),
    "residual_normalized": lambda: ResidualVQ(8, num_quantizers=3, codebook_size=16, codebook_dim=4, normalize=True),
    "fsq": lambda: FSQ(8, levels=(4, 5)),
    "fsq_clamp": lambda: FSQ(8, levels=(8, 5, 3, 4), bound="clamp"),
}
every = pytest.mark.parametrize("name", QUANTIZERS)
half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def made(name):
    """A quantizer after one training step, and hidden frames."""
    torch.manual_seed(0)
    module = QUANTIZERS[name]()
    module(torch.randn(4, 8, 40))
    return module, torch.randn(3, 8, 5)


@every
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_straight_through(name, training):
    """Gradients of the values keep their size on the way to the hidden frames, and do not vanish in the rounding."""
    module, hidden = made(name)
    hidden = (0.5 * hidden.tanh()).requires_grad_()
    out = module.train(training)(hidden)
    (weights := torch.randn_like(out.values)).mul(out.values).sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad.flatten(1).norm(dim=1) > 0.1 * weights.flatten(1).norm(dim=1)).all()


@every
@half
def test_training_under_autocast_equals_training_without(name, dtype):
    module, _ = made(name)
    twin, hidden = copy.deepcopy(module), torch.randn(2, 8, 300)
    torch.manual_seed(1)
    plain = module(hidden)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype):
        cast = twin(hidden)
    assert torch.equal(plain.codes, cast.codes)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in module.state_dict().items())


@every
@half
def test_results_with_half_weights_are_float32(name, dtype):
    module, hidden = made(name)
    out = module.to(dtype).eval()(hidden.to(dtype))
    assert torch.equal(out.values, module.codes_to_values(out.codes))
    assert {value.dtype for value in (out.values, *out.losses.values(), *out.metrics.values())} == {torch.float32}


@every
def test_invalid_inputs_are_named(name):
    module, hidden = made(name)
    with pytest.raises(PartitaError, match=r"8, tokens.*\(3, 7, 5\)"):
        module(hidden[:, :7])
    count = module.num_quantizers
    for wrong in (0, count + 1):
        with pytest.raises(PartitaError, match=f"num_quantizers is {wrong}.*{count}"):
            module.encode_codes(hidden, wrong)
    with pytest.raises(PartitaError, match=f"{count + 1}, 2.*{count}, tokens"):
        module.codes_to_values(torch.zeros(1, count + 1, 2, dtype=torch.int64))
