import copy

import pytest
import torch
from partita_blocks import BatchNorm


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scaled(x):
    """Means 3 and -1, deviations 2 and 0.1."""
    return x * torch.tensor([2.0, 0.1]) + torch.tensor([3.0, -1.0])


def trained(steps=400):
    module = BatchNorm((2,), decay=0.98).double()
    for step in range(steps):
        module(scaled(noise(8, 2, seed=step)))
    return module


def test_running_statistics_are_those_of_the_data():
    module = trained()
    torch.testing.assert_close(module.running_mean, torch.tensor([3.0, -1.0]).double(), rtol=0.1, atol=0)
    torch.testing.assert_close(module.running_variance.sqrt(), torch.tensor([2.0, 0.1]).double(), rtol=0.1, atol=0)


def test_training_is_batch_normalisation():
    x = scaled(noise(8, 3, 2))
    reference = torch.nn.BatchNorm1d(6, affine=False, eps=1e-6).double()
    torch.testing.assert_close(BatchNorm((3, 2), decay=0.9)(x).flatten(1), reference(x.flatten(1)))


def test_evaluation_moves_nothing_and_an_item_does_not_see_the_others():
    module = trained().eval()
    before = copy.deepcopy(module.state_dict())
    x = scaled(noise(4000, 2, seed=7))
    y = module(x)
    torch.testing.assert_close(y.std(0), torch.ones(2).double(), rtol=0.1, atol=0)
    assert y.mean(0).abs().max() < 0.15
    assert torch.equal(module(x[:1]), y[:1])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_gradients_leave_out_what_moves_or_scales_all_items_alike():
    module = trained()
    x = scaled(noise(8, 2, seed=5)).requires_grad_()
    (module(x) * noise(8, 2, seed=6)).sum().backward()
    torch.testing.assert_close(x.grad.sum(0), torch.zeros(2).double())
    centered = x.detach() - x.detach().mean(0)
    torch.testing.assert_close((x.grad * centered).sum(0), torch.zeros(2).double(), rtol=0, atol=2e-3)


def test_two_forwards_in_one_graph():
    module = trained(2)
    x = noise(4, 2).requires_grad_()
    (module(x) + module(x)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 5.0])
@pytest.mark.parametrize("items", [1, 4])
def test_what_never_varies_stays_finite_and_is_zero(value, items):
    module = BatchNorm((2,), decay=0.9)
    for _ in range(3):
        y = module(torch.full((items, 2), value, requires_grad=True))
        y.sum().backward()
    assert y.abs().max() < 1e-2
    assert module.eval()(torch.full((1, 2), value)).abs().max() < 1e-2


def test_statistics_are_of_the_items_that_count():
    x = scaled(noise(8, 2))
    padded = torch.cat([x, torch.full((5, 2), 100.0)])
    counted = torch.arange(13) < 8
    alone, among = BatchNorm((2,), decay=0.9).double(), BatchNorm((2,), decay=0.9).double()
    torch.testing.assert_close(among(padded, counted)[:8], alone(x))
    torch.testing.assert_close(among.state_dict(), alone.state_dict())
    assert among(padded, torch.zeros(13, dtype=torch.bool)).std(0).max() < 1.1  # all count where none does


def test_a_step_that_is_not_finite_is_ignored():
    module, other = trained(3), trained(3)
    module(torch.full((4, 2), torch.inf, dtype=torch.float64))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())
