import math

import pytest
import torch
from partita_losses import LogError, RelativeL1


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_relative_l1_is_independent_of_level_down_to_its_floor():
    loss, (prediction, target) = RelativeL1(floor=0.01), noise(2, 1, 2, 500)
    expected = (prediction - target).abs().mean() / target.abs().mean()
    for gain in (1.0, 0.1):
        torch.testing.assert_close(loss(gain * prediction, gain * target)[0], expected)
    quiet = 1e-4 / float(target.abs().mean())
    assert float(loss(torch.zeros_like(target), quiet * target)) == pytest.approx(0.01)
    assert float(loss(torch.full_like(target, 0.02), torch.zeros_like(target))) == pytest.approx(2.0)


def test_log_error_is_minus_the_sdr_in_nepers():
    loss, target = LogError(limit_db=80.0, floor=1e-6), noise(1, 1, 2000)
    error = noise(1, 1, 2000, seed=1)
    error *= target.norm() / error.norm()
    for sdr in (-20, 0, 20, 40):
        value = float(loss(target + 10 ** (-sdr / 20) * error, target))
        assert value == pytest.approx((80 - sdr) * math.log(10) / 20, rel=1e-3)
    assert float(loss(target, target)) == 0
    assert float(loss(target + 1e-4 * error, target)) == pytest.approx(0.5 * math.log(2), rel=1e-6)  # at the limit


def test_log_error_has_the_same_relative_gradient_at_every_sdr():
    """The derivative by the logarithm of the error's amplitude is 1 far below the limit."""
    loss, target, error = LogError(), noise(1, 1, 2000), noise(1, 1, 2000, seed=1)
    for size in (3.0, 0.3, 0.03):
        gain = torch.tensor(math.log(size), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(target + gain.exp() * error, target).sum(), gain)
        assert float(slope) == pytest.approx(1, rel=2e-3)


def test_log_error_of_a_silent_target_is_relative_to_its_floor():
    loss = LogError(limit_db=20.0, floor=0.01)
    value = loss(torch.full((1, 1, 100), 0.1, dtype=torch.float64), torch.zeros(1, 1, 100, dtype=torch.float64))
    assert float(value) == pytest.approx(0.5 * math.log(1 + 100 * 100))


@pytest.mark.parametrize("loss", [RelativeL1(), LogError()], ids=["relative_l1", "log_error"])
def test_padding_does_not_dilute_waveform_losses(loss):
    prediction, target = noise(2, 1, 2, 500)
    padded = [torch.nn.functional.pad(x, (0, 300)) for x in (prediction, target)]
    torch.testing.assert_close(loss(*padded, lengths=[500]), loss(prediction, target))
