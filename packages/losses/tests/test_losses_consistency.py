import math

import pytest
import torch
from partita_core import NoiseSchedule, PartitaError
from partita_losses import draw_times, pseudo_huber, step_size

OFFSET = 0.00054


def levels(count: int = 100_000, uniform_share: float = 0.0) -> torch.Tensor:
    """Noise levels of evenly spaced draws, that is, exact quantiles."""
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return NoiseSchedule().sigma(draw_times(uniform, NoiseSchedule(), mean=-1.1, std=2.0, uniform_share=uniform_share))


@pytest.mark.parametrize(("quantile", "level"), [(0.01, 0.0065), (0.1, 0.046), (0.5, 0.58), (0.9, 7.1), (0.99, 41.0)])
def test_quantiles_of_the_levels(quantile, level):
    assert float(levels().quantile(quantile)) == pytest.approx(level, rel=0.02)


def test_uniform_share_adds_draws_near_the_largest_level():
    plain, mixed = levels(), levels(uniform_share=0.25)
    assert float((plain > 40).double().mean()) == pytest.approx(0.0105, abs=2e-4)
    assert float((plain > 60).double().mean()) == pytest.approx(0.0034, abs=2e-4)
    even = 1 - NoiseSchedule().time(40.0)
    assert float((mixed > 40).double().mean()) == pytest.approx(0.75 * 0.0105 + 0.25 * even, abs=1e-3)
    assert float((mixed > 60).double().mean()) > 4 * float((plain > 60).double().mean())


def test_times_are_continuous_and_increasing_in_the_draw():
    uniform = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    times = draw_times(uniform, NoiseSchedule(), mean=-1.1, std=2.0, uniform_share=0.0)
    steps = times.diff()
    assert float(times[0]) == 0.0 and float(times[-1]) == pytest.approx(1.0, abs=1e-9)
    assert bool((steps > 0).all()) and float(steps.max()) < 1e-2
    assert draw_times(torch.rand(3, 2), NoiseSchedule(), mean=0.0, std=1.0, uniform_share=0.5).shape == (3, 2)
    even = draw_times(uniform, NoiseSchedule(), mean=-1.1, std=2.0, uniform_share=1.0)
    torch.testing.assert_close(even, uniform, rtol=0, atol=1e-9)


def test_step_sizes():
    assert step_size(0.0, initial=0.1, exponent=3.0) == pytest.approx(0.1)
    assert step_size(0.5, initial=0.1, exponent=3.0) == pytest.approx(0.01)
    assert step_size(1.0, initial=0.1, exponent=3.0) == pytest.approx(0.001)
    assert step_size(1.0, initial=0.1, exponent=2.0) == pytest.approx(0.01)


def test_pseudo_huber_is_a_distance_per_item():
    torch.manual_seed(0)
    one, other = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    c = OFFSET * math.sqrt(4 * 5 * 6)
    norms = (one - other).double().flatten(1).norm(dim=1)
    expected = (norms.square() + c**2).sqrt() - c
    torch.testing.assert_close(pseudo_huber(one, other, offset=OFFSET), expected.float())
    # Far below c the distance is quadratic; the plain formula would cancel there.
    tiny = torch.full((1, 120), 1e-6)
    assert float(pseudo_huber(tiny, 0 * tiny, offset=OFFSET)) == pytest.approx(120 * 1e-12 / (2 * c), rel=1e-4)


def test_pseudo_huber_of_equal_items_is_zero_with_a_finite_gradient():
    x = torch.ones(2, 8, requires_grad=True)
    distance = pseudo_huber(x, torch.ones(2, 8), offset=OFFSET)
    distance.sum().backward()
    assert distance.tolist() == [0.0, 0.0] and x.grad is not None and bool((x.grad == 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_pseudo_huber_is_at_least_float32(dtype):
    x = torch.full((1, 4), 2.0, dtype=dtype)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert pseudo_huber(x, torch.zeros_like(x), offset=OFFSET).dtype == wanted


def test_pseudo_huber_different_shapes():
    with pytest.raises(PartitaError, match=r"\(2, 3\).*\(3, 2\)"):
        pseudo_huber(torch.zeros(2, 3), torch.zeros(3, 2), offset=OFFSET)
