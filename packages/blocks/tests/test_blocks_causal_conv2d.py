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
    "conv": lambda norm: CausalConv2d(3, 5, kernel=(7, 7), stride=(1, 1), weight_norm=norm),
    "strided": lambda norm: CausalConv2d(3, 5, kernel=(4, 6), stride=(2, 3), weight_norm=norm),
    "transposed": lambda norm: CausalConvTranspose2d(3, 5, kernel=(4, 6), stride=(2, 3), weight_norm=norm),
    "transposed_in_frequency": lambda norm: CausalConvTranspose2d(3, 5, kernel=(3, 4), stride=(1, 2), weight_norm=norm),
    "transposed_by_three": lambda norm: CausalConvTranspose2d(3, 5, kernel=(7, 3), stride=(3, 1), weight_norm=norm),
    "down": lambda norm: DownUnit2d(3, 5, stride=(2, 2), weight_norm=norm),
    "down_in_frequency": lambda norm: DownUnit2d(3, 5, stride=(1, 4), weight_norm=norm),
    "level": lambda norm: DownUnit2d(3, 3, stride=(1, 1), weight_norm=norm),
    "up": lambda norm: UpUnit2d(3, 5, stride=(2, 2), weight_norm=norm),
    "up_in_time": lambda norm: UpUnit2d(3, 5, stride=(2, 1), weight_norm=norm),
    "up_level": lambda norm: UpUnit2d(3, 3, stride=(1, 1), weight_norm=norm),
}


def built(name, norm=False, seed=0):
    torch.manual_seed(seed)
    return LAYERS[name](norm).double().eval()


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fresh(layer, x):
    return layer.init_state(x.shape[0], x.shape[3], device=x.device, dtype=x.dtype)


@torch.no_grad()
def whole(layer, x):
    return layer(x, fresh(layer, x))[0]


def raises_the_rate(layer):
    return isinstance(layer, (UpUnit2d, CausalConvTranspose2d))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_rates_change_by_the_stride(name, norm):
    layer = built(name, norm)
    y = whole(layer, noise(2, 3, 6, BINS))
    time, frequency = layer.stride
    frames, bins = (6 * time, BINS * frequency) if raises_the_rate(layer) else (6 // time, BINS // frequency)
    assert y.shape == (2, 3 if "level" in name else 5, frames, bins)


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_in_pieces_as_on_the_whole(name):
    layer, x = built(name), noise(2, 3, 12, BINS)
    state, pieces = fresh(layer, x), []
    for piece in x.split([2, 6, 4], dim=2):
        y, state = layer(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole(layer, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_reach_is_what_is_seen(name):
    """The output of a frame changes with those frames of the input that `reach` tells, the ends included."""
    layer, x = built(name), noise(1, 3, 24, BINS)
    frame = whole(layer, x).shape[2] // 2
    first, last = layer.reach(frame, frame)
    x.requires_grad_()
    layer(x, fresh(layer, x))[0][:, :, frame].sum().backward()
    seen = x.grad.abs().amax((0, 1, 3)).nonzero().flatten()
    assert (int(seen[0]), int(seen[-1])) == (first, last)


@pytest.mark.parametrize("name", LAYERS)
def test_frequencies_stay_where_they_are(name):
    """What is at a bin is felt around that bin, as far to one side as to the other, but for one."""
    layer = built(name)
    x = torch.zeros(1, 3, 6, 24, dtype=torch.float64)
    other = x.clone()
    other[..., 12] = 1
    felt = (whole(layer, other) - whole(layer, x)).abs().amax((0, 1, 2)).nonzero().flatten()
    stride = layer.stride[1]
    begin, end = (12 * stride, 12 * stride + stride - 1) if raises_the_rate(layer) else (12 // stride, 12 // stride)
    assert 0 <= begin - int(felt[0]) <= 8 and 0 <= int(felt[-1]) - end <= 8
    assert abs((begin - int(felt[0])) - (int(felt[-1]) - end)) <= 1


def test_a_transposed_convolution_is_torchs_cut_at_the_end():
    layer, x = built("transposed"), noise(1, 3, 4, BINS)
    full = F.conv_transpose2d(x, layer.conv.weight, layer.conv.bias, stride=(2, 3))
    torch.testing.assert_close(whole(layer, x), full[:, :, :8, 2:-1], rtol=0, atol=1e-12)


@torch.no_grad()
def test_shortcuts_average_and_repeat():
    down, up, x = built("down"), built("up"), noise(1, 3, 4, BINS)
    for unit in (down, up):
        for parameter in unit.outer.parameters():
            parameter.zero_()
    torch.testing.assert_close(whole(down, x), down.shortcut(F.avg_pool2d(x, (2, 2))), rtol=0, atol=1e-12)
    repeated = F.interpolate(up.shortcut(x), scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(whole(up, x), repeated, rtol=0, atol=1e-12)


def test_channels_last_is_kept():
    layer, x = built("down_in_frequency"), noise(2, 3, 8, BINS).contiguous(memory_format=torch.channels_last)
    y, state = layer(x, fresh(layer, x))
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, *state))


def test_a_state_holds_no_more_than_the_past():
    layer, x = built("conv"), noise(1, 3, 50, BINS)
    state = layer(x, fresh(layer, x))[1]
    assert state.untyped_storage().nbytes() == 3 * 6 * BINS * 8


def test_strides_divide_the_bins():
    assert coarsest_bins(480, ((1, 2), (1, 2), (1, 3), (2, 2), (2, 1))) == 20
    with pytest.raises(PartitaError, match="160 bins cannot be lowered by 12"):
        coarsest_bins(160, ((1, 4), (2, 3)))


@pytest.mark.parametrize("norm", [False, True])
def test_weights_are_drawn_by_the_size_of_a_layer_or_alike(norm):
    torch.manual_seed(0)
    layers = nn.ModuleList(
        [
            nn.Linear(64, 64),
            CausalConv2d(16, 32, kernel=(3, 4), stride=(1, 2), weight_norm=norm),
            CausalConvTranspose2d(32, 16, kernel=(4, 4), stride=(2, 2), weight_norm=norm),
        ]
    )
    weights = (layers[0], layers[1].conv, layers[2].conv)
    # A normal cut at two standard deviations has 0.88 of its own. An output of the last sums 32 * 2 * 2 inputs.
    for std, expected in ((0.02, [0.02] * 3), (None, [64**-0.5, 192**-0.5, 128**-0.5])):
        init_truncated_normal(layers, std)
        for layer, size in zip(weights, expected):
            assert float(layer.weight.detach().std()) == pytest.approx(0.88 * size, rel=0.05)
            assert float(layer.weight.detach().abs().max()) <= 2.001 * size and not layer.bias.any()
