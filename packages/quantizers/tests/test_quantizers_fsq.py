import math

import pytest
import torch
from partita_core import PartitaError
from partita_quantizers import FSQ, FSQConfig


@pytest.mark.parametrize("levels", [(8, 5, 5), (11, 11), (3, 4, 16, 7)])
def test_codes_and_values_match_the_library(levels):
    from vector_quantize_pytorch import FSQ as Reference

    torch.manual_seed(0)
    count = len(levels)
    quantizer = FSQConfig(levels=levels).build(dim=2 * count)
    reference = Reference(list(levels), num_codebooks=2)
    hidden = 2 * torch.randn(3, 2 * count, 400)
    values, codes = reference(hidden.transpose(1, 2))
    out = quantizer(hidden)
    assert torch.equal(out.codes, codes.transpose(1, 2).long())
    torch.testing.assert_close(out.values, values.transpose(1, 2))
    assert quantizer.codebook_sizes == (math.prod(levels),) * 2


def test_clamped_codes_match_the_library_within_its_margin():
    from vector_quantize_pytorch import FSQ as Reference

    torch.manual_seed(0)
    quantizer = FSQConfig(levels=(11, 5), bound="clamp").build(dim=2)
    hidden = 2 * torch.rand(1, 2, 2000) - 1
    steps = hidden * torch.tensor([5, 2])[:, None]
    clear = ((steps - steps.floor() - 0.5).abs() > 0.01).all(dim=1)  # away from the ties of rounding
    codes = Reference([11, 5], bound_hard_clamp=True)(hidden.transpose(1, 2))[1].long()
    assert clear.float().mean() > 0.9
    assert torch.equal(quantizer.encode_codes(hidden)[:, 0][clear], codes[clear])


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("levels", [(8,), (4, 3), (11, 6), (1000,)])
def test_every_code_is_reachable(bound, levels):
    quantizer = FSQConfig(levels=levels, bound=bound).build(dim=len(levels)).double()
    edge = 12.0 if bound == "tanh" else 1.0
    # finest if the tanh is flat
    line = torch.linspace(-edge, edge, 60001, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line[:: 1 if len(levels) == 1 else 300]] * len(levels))
    hidden = grid.view(-1, len(levels)).T[None]
    assert quantizer.encode_codes(hidden).unique().tolist() == list(range(math.prod(levels)))


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
@pytest.mark.parametrize("levels", [(11, 11, 11, 11), (8,) * 20, (2**20 + 1, 2**20, 2**20), (2047, 3)], ids=str)
def test_codes_round_trip_for_any_number_of_levels(bound, levels):
    torch.manual_seed(0)
    quantizer = FSQConfig(levels=levels, bound="clamp").build(dim=2 * len(levels)).double()
    size = math.prod(levels)
    codes = torch.randint(size, (2, 2, 500))
    codes[0, 0, :2] = torch.tensor([0, size - 1])
    values = quantizer.codes_to_values(codes)
    assert values.abs().max() <= 1
    assert torch.equal(quantizer.encode_codes(values), codes)  # clamped values are their own nearest levels
    # Codes stay in range for any input.
    quantizer = FSQConfig(levels=levels, bound=bound).build(dim=2 * len(levels))
    codes = quantizer.encode_codes(1e4 * torch.randn(2, 2 * len(levels), 50))
    assert codes.min() >= 0
    assert codes.max() < size


def test_clamped_values_are_the_nearest_levels():
    torch.manual_seed(0)
    quantizer = FSQConfig(levels=(8, 11), bound="clamp").build(dim=2)
    latents = torch.rand(1, 2, 500) * 1.7 - 0.95  # within reach of the even one, which ends at 0.75
    error = (quantizer(latents).values - latents).abs().amax(dim=2)[0]
    assert error[0] <= 0.5 / 4 + 1e-6
    assert error[1] <= 0.5 / 5 + 1e-6


def test_digits_are_packed_least_significant_first():
    quantizer = FSQConfig(levels=(4, 5)).build(dim=4)
    # digits (3, 1) and (0, 4): 3 + 4 * 1 = 7 and 0 + 4 * 4 = 16
    codes = torch.tensor([[[7], [16]]])
    expected = torch.tensor([(3 - 2) / 2, (1 - 2) / 2, (0 - 2) / 2, (4 - 2) / 2]).view(1, 4, 1)
    assert torch.equal(quantizer.codes_to_values(codes), expected)


def test_gradient_equals_that_of_the_bound():
    torch.manual_seed(0)
    hidden = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    quantizer = FSQConfig(levels=(11, 11)).build(dim=4).double()
    quantizer(hidden).values.sum().backward()
    expected = (1 - hidden.detach().tanh().square()) * 1.001
    torch.testing.assert_close(hidden.grad, expected)


def test_rounding_dropout_skips_entire_examples():
    torch.manual_seed(0)
    quantizer = FSQConfig(levels=(5, 5), rounding_dropout=0.75).build(dim=4)
    hidden = torch.randn(2000, 4, 3)
    out = quantizer(hidden)
    rounded = (out.values == quantizer.codes_to_values(out.codes)).flatten(1)
    assert torch.equal(rounded.all(1), rounded.any(1))
    assert abs(rounded.all(1).float().mean().item() - 0.25) < 0.04
    torch.testing.assert_close(out.values[~rounded.all(1)], 1.001 * hidden[~rounded.all(1)].tanh())
    assert torch.equal(out.codes, quantizer.eval()(hidden).codes)


def test_metrics_count_codes_and_edges():
    quantizer = FSQConfig(levels=(3, 3)).build(dim=4)
    hidden = torch.zeros(1, 4, 4)
    hidden[0, 0] = torch.tensor([-9.0, 9.0, 0.0, 0.0])  # the first group has three codes, the second one
    metrics = quantizer(hidden).metrics
    assert metrics["distinct_codes"] == 2
    assert metrics["edge_fraction"] == 2 / 16


def test_invalid_settings():
    with pytest.raises(PartitaError, match="4 .*10 "):
        FSQ(10, levels=(11,) * 4)
    with pytest.raises(PartitaError, match=r"levels\[0\] is 2.*3"):
        FSQConfig(levels=(2, 5))
    with pytest.raises(PartitaError, match=f"{11**64} .*{2**63 - 1}"):
        FSQ(levels=(11,) * 64)
    with pytest.raises(PartitaError, match="bound is 'hard'"):
        FSQConfig(bound="hard")
