import pytest
import torch
from partita_blocks import ACTIVATIONS, DownStage, ResidualUnit, UpStage, down_stages, up_stages
from partita_core import PartitaError
from torch import nn


def measured_reach(module: nn.Module, channels: int, length: int, position: int) -> tuple[int, int]:
    """First and last input with a gradient from output `position`."""
    x = torch.randn(1, channels, length, dtype=torch.float64, requires_grad=True)
    y = module.double()(x)
    (gradient,) = torch.autograd.grad(y[0, :, position].sum(), x)
    used = gradient.abs().sum((0, 1)).nonzero().flatten()
    return int(used[0]), int(used[-1])


SETTINGS = {"dilations": (1, 3), "kernel": 7, "activation": ACTIVATIONS["snake_lite"]}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("stride", [2, 3, 7, 10])
def test_down_stage_length_and_reach(stride, separable, early):
    torch.manual_seed(0)
    stage = DownStage(3, 4, stride=stride, separable=separable, early=early, **SETTINGS)
    frames = 60
    assert stage.double()(torch.zeros(1, 3, frames * stride, dtype=torch.float64)).shape == (1, 4, frames)
    assert measured_reach(stage, 3, frames * stride, 30) == stage.reach(30, 30)


@pytest.mark.parametrize("separable", [True, False])
@pytest.mark.parametrize("stride", [2, 3, 7, 10])
def test_up_stage_length_and_reach(stride, separable):
    torch.manual_seed(0)
    stage = UpStage(3, 4, stride=stride, separable=separable, **SETTINGS)
    assert stage.double()(torch.zeros(1, 3, 40, dtype=torch.float64)).shape == (1, 4, 40 * stride)
    for position in range(20 * stride, 21 * stride):
        assert measured_reach(stage, 3, 40, position) == stage.reach(position, position)


def test_early_units_divide_the_cost_by_the_stride():
    from torch.utils.flop_counter import FlopCounterMode

    def cost(early: bool) -> int:
        stage = DownStage(8, 8, stride=4, separable=False, early=early, **SETTINGS)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            stage.units(torch.zeros(1, 8, 400 // (4 if early else 1)))
        return counter.get_total_flops()

    assert cost(False) == 4 * cost(True)


def test_separable_unit_parameter_count():
    unit = ResidualUnit(16, kernel=7, dilation=3, separable=True, activation=ACTIVATIONS["elu"])
    weights = sum(p.numel() for name, p in unit.named_parameters() if name.endswith("original1"))
    assert weights == 16 * 7 + 16 * 16 + 16 * 16


def test_residual_unit_formula():
    torch.manual_seed(0)
    unit = ResidualUnit(4, kernel=7, dilation=1, separable=False, activation=ACTIVATIONS["elu"])
    x = torch.randn(2, 4, 30)
    torch.testing.assert_close(unit(x) - x, unit.layers(x), rtol=1e-5, atol=1e-6)


def test_stages_from_widths_and_strides():
    down = down_stages((2, 3, 5), (4, 6), separable=False, early=True, **SETTINGS)
    assert nn.Sequential(*down)(torch.zeros(1, 2, 24 * 7)).shape == (1, 5, 7)
    up = up_stages((5, 3, 2), (6, 4), separable=False, **SETTINGS)
    assert nn.Sequential(*up)(torch.zeros(1, 5, 7)).shape == (1, 2, 24 * 7)
    with pytest.raises(PartitaError, match="2 channel widths for 2 strides.* 3"):
        down_stages((2, 3), (4, 6), separable=False, early=True, **SETTINGS)
    with pytest.raises(PartitaError, match="4 channel widths for 2 strides.* 3"):
        up_stages((2, 3, 5, 7), (4, 6), separable=False, **SETTINGS)
