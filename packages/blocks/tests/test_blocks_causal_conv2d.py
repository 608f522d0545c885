import pytest
import torch
from partita_blocks import (
    CausalConv2d,
    CausalConvTranspose2d,
    DownUnit2d,
    UpUnit2d,
    coarsest_bins,
    init_truncated_normal,
)
from partita_core import PartitaError
from torch import nn
from torch.nn import functional as F

BINS = 12
LAYERS = {
    "conv": lambda: CausalConv2d(3, 5, kernel=(7, 7), stride=(1, 1)),
    "strided": lambda: CausalConv2d(3, 5, kernel=(4, 6), stride=(2, 3)),
    "transposed": lambda: CausalConvTranspose2d(3, 5, kernel=(4, 6), stride=(2, 3)),
    "transposed_in_frequency": lambda: CausalConvTranspose2d(3, 5, kernel=(3, 4), stride=(1, 2)),
    "transposed_by_three": lambda: CausalConvTranspose2d(3, 5, kernel=(7, 3), stride=(3, 1)),
    "down": lambda: DownUnit2d(3, 5, stride=(2, 2)),
    "down_in_frequency": lambda: DownUnit2d(3, 5, stride=(1, 4)),
    "level": lambda: DownUnit2d(3, 3, stride=(1, 1)),
    "up": lambda: UpUnit2d(3, 5, stride=(2, 2)),
    "up_in_time": lambda: UpUnit2d(3, 5, stride=(2, 1)),
    "up_level": lambda: UpUnit2d(3, 3, stride=(1, 1)),
}


def built(name, seed=0):
    torch.manual_seed(seed)
    return LAYERS[name]().double().eval()


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fresh(layer, x):
    return layer.init_state(x.shape[0], x.shape[3], device=x.device, dtype=x.dtype)


@torch.no_grad()
def full(layer, x):
    return layer(x, fresh(layer, x))[0]


def raises_the_rate(layer):
    return isinstance(layer, (UpUnit2d, CausalConvTranspose2d))


@pytest.mark.parametrize("name", LAYERS)
def test_resolutions_change_by_the_stride(name):
    layer = built(name)
    y = full(layer, noise(2, 3, 6, BINS))
    time, frequency = layer.stride
    frames, bins = (6 * time, BINS * frequency) if raises_the_rate(layer) else (6 // time, BINS // frequency)
    assert y.shape == (2, 3 if "level" in name else 5, frames, bins)


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_streaming_equals_the_full_forward(name):
    layer, x = built(name), noise(2, 3, 12, BINS)
    state, pieces = fresh(layer, x), []
    for piece in x.split([2, 6, 4], dim=2):
        y, state = layer(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=2), full(layer, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_reach_matches_the_gradient(name):
    """An output frame depends on the first and last input frame of its `reach`, and on none outside of it."""
    layer, x = built(name), noise(1, 3, 24, BINS)
    frame = full(layer, x).shape[2] // 2
    first, last = layer.reach(frame, frame)
    x.requires_grad_()
    layer(x, fresh(layer, x))[0][:, :, frame].sum().backward()
    used = x.grad.abs().amax((0, 1, 3)).nonzero().flatten()
    assert (int(used[0]), int(used[-1])) == (first, last)


@pytest.mark.parametrize("name", LAYERS)
def test_frequencies_are_not_shifted(name):
    """An impulse at a bin affects as many bins below it as above it, up to a difference of one."""
    layer = built(name)
    x = torch.zeros(1, 3, 6, 24, dtype=torch.float64)
    other = x.clone()
    other[..., 12] = 1
    affected = (full(layer, other) - full(layer, x)).abs().amax((0, 1, 2)).nonzero().flatten()
    stride = layer.stride[1]
    begin, end = (12 * stride, 12 * stride + stride - 1) if raises_the_rate(layer) else (12 // stride, 12 // stride)
    assert 0 <= begin - int(affected[0]) <= 8 and 0 <= int(affected[-1]) - end <= 8
    assert abs((begin - int(affected[0])) - (int(affected[-1]) - end)) <= 1


def test_transposed_convolution_is_a_cropped_torch_convolution():
    layer, x = built("transposed"), noise(1, 3, 4, BINS)
    expected = F.conv_transpose2d(x, layer.conv.weight, layer.conv.bias, stride=(2, 3))
    torch.testing.assert_close(full(layer, x), expected[:, :, :8, 2:-1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_shortcuts_average_and_repeat():
    down, up, x = built("down"), built("up"), noise(1, 3, 4, BINS)
    for unit in (down, up):
        for parameter in unit.outer.parameters():
            parameter.zero_()
    torch.testing.assert_close(full(down, x), down.shortcut(F.avg_pool2d(x, (2, 2))), rtol=0, atol=1e-12)
    repeated = F.interpolate(up.shortcut(x), scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(full(up, x), repeated, rtol=0, atol=1e-12)


def test_channels_last_is_preserved():
    layer, x = built("down_in_frequency"), noise(2, 3, 8, BINS).contiguous(memory_format=torch.channels_last)
    y, state = layer(x, fresh(layer, x))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, *state))


def test_state_has_only_the_past_in_memory():
    layer, x = built("conv"), noise(1, 3, 50, BINS)
    state = layer(x, fresh(layer, x))[1]
    assert state.untyped_storage().nbytes() == 3 * 6 * BINS * 8


def test_coarsest_bins():
    assert coarsest_bins(480, ((1, 2), (1, 2), (1, 3), (2, 2), (2, 1))) == 20
    with pytest.raises(PartitaError, match="160 .* 12"):
        coarsest_bins(160, ((1, 4), (2, 3)))


def test_truncated_normal_initialization():
    torch.manual_seed(0)
    layers = nn.ModuleList(
        [
            nn.Linear(64, 64),
            CausalConv2d(16, 32, kernel=(3, 4), stride=(1, 2)),
            CausalConvTranspose2d(32, 16, kernel=(4, 4), stride=(2, 2)),
        ]
    )
    weights = (layers[0], layers[1].conv, layers[2].conv)
    # Truncation at two standard deviations leaves 0.88 of the deviation. The last layer sums 32 * 2 * 2 inputs.
    for std, expected in ((0.02, [0.02] * 3), (None, [64**-0.5, 192**-0.5, 128**-0.5])):
        init_truncated_normal(layers, std)
        for layer, size in zip(weights, expected):
            assert float(layer.weight.detach().std()) == pytest.approx(0.88 * size, rel=0.05)
            assert float(layer.weight.detach().abs().max()) <= 2.001 * size and not layer.bias.any()
