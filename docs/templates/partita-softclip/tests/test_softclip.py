import pytest
import torch
from partita_core import components
from partita_softclip import SoftClip, SoftClipConfig
from partita_testing import BOTTLENECK_CHECKS


@pytest.mark.parametrize("check", BOTTLENECK_CHECKS)
def test_conformance(check):
    check(SoftClipConfig.example())


def test_announced_by_its_entry_point():
    assert components("*/softclip") == {"bottleneck/softclip": SoftClipConfig}


def test_values():
    bottleneck = SoftClip(2, initial_gain=1.0)
    with torch.no_grad():
        bottleneck.gain.copy_(torch.tensor([1.0, 2.0]))
    hidden = torch.tensor([[[3.0, -3.0, 1e30], [0.0, 0.5, -1e30]]])
    expected = torch.tensor([[[0.9**0.5, -(0.9**0.5), 1.0], [0.0, 0.5**0.5, -1.0]]])
    torch.testing.assert_close(bottleneck(hidden).values, expected)


def test_gradient_outlives_that_of_tanh():
    hidden = torch.full((1, 1, 1), 12.0, requires_grad=True)
    SoftClip(1, initial_gain=1.0)(hidden).values.sum().backward()
    tanh_slope = 1 / torch.cosh(torch.tensor(12.0)) ** 2
    assert hidden.grad.item() > 1e6 * tanh_slope
