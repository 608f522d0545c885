import pytest
import torch
from partita_core import PartitaError
from partita_losses import euler_flow, flow_interpolation, flow_matching_loss, flow_velocity, guided


def ends() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 3, 4, dtype=torch.float64), torch.randn(5, 3, 4, dtype=torch.float64)


def test_paths_have_constant_velocity():
    noise, data = ends()
    assert torch.equal(flow_interpolation(noise, data, torch.zeros(5)), noise)
    assert torch.equal(flow_interpolation(noise, data, torch.ones(5)), data)
    times = torch.rand(5, dtype=torch.float64)
    here, later = (flow_interpolation(noise, data, times + shift) for shift in (0, 1e-3))
    torch.testing.assert_close((later - here) / 1e-3, flow_velocity(noise, data))
    # Times are per item.
    torch.testing.assert_close(here[2], (1 - times[2]) * noise[2] + times[2] * data[2])


def test_loss_by_hand():
    noise, data = ends()
    assert float(flow_matching_loss(data - noise, noise, data).abs().max()) == 0
    torch.testing.assert_close(flow_matching_loss(data - noise + 0.5, noise, data), torch.full_like(data, 0.25))
    half = [x.bfloat16() for x in (data, noise, data)]
    assert flow_matching_loss(*half).dtype == torch.float32
    with pytest.raises(PartitaError, match=r"\(1, 3, 4\).*\(5, 3, 4\)"):
        flow_matching_loss(data[:1], noise, data)


def test_loss_of_the_mean_velocity_is_the_variance():
    noise, data = ends()
    target = flow_velocity(noise, data)
    loss = flow_matching_loss(target.mean().expand_as(target), noise, data).mean()
    torch.testing.assert_close(loss, target.var(correction=0))


def test_euler_flow_by_hand():
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    # dx/dt = 2 x: each step multiplies by 1 + 2 / n.
    for steps in (1, 4, 10):
        torch.testing.assert_close(euler_flow(lambda x, t: 2 * x, x, steps=steps), x * (1 + 2 / steps) ** steps)
    # dx/dt = t: the mean of the times at which the steps begin, 0, 1/4, 1/2 and 3/4.
    torch.testing.assert_close(euler_flow(lambda x, t: t[:, None].expand_as(x), x, steps=4), x + 0.375)


def test_one_step_is_exact_on_straight_paths():
    noise, data = ends()
    for steps in (1, 7):
        torch.testing.assert_close(euler_flow(lambda x, t: data - noise, noise, steps=steps), data)
    with pytest.raises(PartitaError, match="steps is 0"):
        euler_flow(lambda x, t: x, noise, steps=0)


def test_guidance_extrapolates():
    one, other = torch.tensor([2.0]), torch.tensor([1.0])
    assert [float(guided(one, other, scale)) for scale in (0.0, 1.0, 1.5, 2.0)] == [1.0, 2.0, 2.5, 3.0]
