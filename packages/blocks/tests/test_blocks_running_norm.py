import copy

import pytest
import torch
from partita_blocks import RunningNorm


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(steps=400):
    """Seen batches of 8 of numbers with the means 3 and -1 and the deviations 2 and 0.1."""
    module = RunningNorm((2,), decay=0.98).double()
    for step in range(steps):
        module(scaled(noise(8, 2, seed=step)))
    return module


def scaled(x):
    return x * torch.tensor([2.0, 0.1]) + torch.tensor([3.0, -1.0])


def test_statistics_are_those_of_the_data():
    module = trained()
    torch.testing.assert_close(module.running_mean, torch.tensor([3.0, -1.0]).double(), rtol=0.1, atol=0)
    torch.testing.assert_close(module.running_variance.sqrt(), torch.tensor([2.0, 0.1]).double(), rtol=0.1, atol=0)


def test_evaluation_gives_zero_mean_and_unit_variance_and_moves_nothing():
    module = trained().eval()
    before = copy.deepcopy(module.state_dict())
    y = module(scaled(noise(4000, 2, seed=7)))
    torch.testing.assert_close(y.std(0), torch.ones(2).double(), rtol=0.1, atol=0)
    assert y.mean(0).abs().max() < 0.15
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_training_and_evaluation_agree_and_an_item_does_not_see_the_others():
    """Batch normalisation does not: a batch of equal items would be zero there."""
    module = trained()
    state = copy.deepcopy(module.state_dict())
    x = scaled(noise(1, 2, seed=3)).expand(8, 2)
    y = module(x)
    expected = (x - module.running_mean) / module.running_variance.sqrt()
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)
    module.load_state_dict(state)
    torch.testing.assert_close(module.eval()(x), y, rtol=0.2, atol=0.1)


def test_gradients_leave_out_what_moves_or_scales_all_items_alike():
    module = trained()
    x = scaled(noise(8, 2, seed=5)).requires_grad_()
    (module(x) * noise(8, 2, seed=6)).sum().backward()
    torch.testing.assert_close(x.grad.sum(0), torch.zeros(2).double())
    centred = x.detach() - x.detach().mean(0)
    torch.testing.assert_close((x.grad * centred).sum(0), torch.zeros(2).double(), rtol=0, atol=2e-3)


def test_two_forwards_in_one_graph():
    module = trained(2)
    x = noise(4, 2).requires_grad_()
    (module(x) + module(x)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_what_never_varies_stays_finite_and_ends_at_zero(value):
    module = RunningNorm((2,), decay=0.9)
    for _ in range(3):
        y = module(torch.full((4, 2), value, requires_grad=True))
        y.sum().backward()
    assert y.abs().max() < 1e-2
    assert module.eval()(torch.full((1, 2), value)).abs().max() < 1e-2
