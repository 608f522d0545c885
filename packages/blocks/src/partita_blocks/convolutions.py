"""Convolutions of 1-D autoencoders: residual units, and stages that lower or raise the rate.

Every block tells its `reach`: for outputs `first` to `last`, the first and last input it sees. Encoders and decoders
add these up to the context they declare.
"""

from collections.abc import Callable, Sequence

from partita_core import PartitaError
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

Activation = Callable[[int], nn.Module]


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = True,
) -> nn.Module:
    """A weight-normalised Conv1d; `padding=None` keeps the length at stride 1."""
    padding = (kernel - 1) // 2 * dilation if padding is None else padding
    layer = nn.Conv1d(channels_in, channels_out, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias)
    return weight_norm(layer)


def conv_reach(
    first: int, last: int, kernel: int, *, stride: int = 1, dilation: int = 1, padding: int | None = None
) -> tuple[int, int]:
    """What outputs `first` to `last` of a convolution see of its input."""
    padding = (kernel - 1) // 2 * dilation if padding is None else padding
    return first * stride - padding, last * stride - padding + (kernel - 1) * dilation


def conv_transpose_reach(first: int, last: int, kernel: int, *, stride: int, padding: int) -> tuple[int, int]:
    """What outputs `first` to `last` of a transposed convolution see of its input."""
    return -((kernel - 1 - padding - first) // stride), (last + padding) // stride


class ResidualUnit(nn.Module):
    """`x + conv1(act(conv7(act(x))))` with a dilated first convolution; the wide one may be separable.

    The separable form is depthwise, then pointwise (GenAE, arXiv 2602.15749).
    """

    def __init__(self, channels: int, *, kernel: int, dilation: int, separable: bool, activation: Activation) -> None:
        """Builds a unit over `channels`, with `kernel` taps `dilation` apart."""
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        if separable:
            wide = [
                conv(channels, channels, kernel, dilation=dilation, groups=channels),
                conv(channels, channels, 1),
            ]
        else:
            wide = [conv(channels, channels, kernel, dilation=dilation)]
        self.layers = nn.Sequential(activation(channels), *wide, activation(channels), conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, length)` to as much."""
        return x + self.layers(x)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """See the module."""
        return conv_reach(first, last, self.kernel, dilation=self.dilation)


def residual_units(
    channels: int, dilations: Sequence[int], *, kernel: int, separable: bool, activation: Activation
) -> list[ResidualUnit]:
    """One residual unit for each dilation."""
    return [
        ResidualUnit(channels, kernel=kernel, dilation=dilation, separable=separable, activation=activation)
        for dilation in dilations
    ]


class DownStage(nn.Module):
    """Lowers the rate by `stride`: kernel 2 * stride, padding ceil(stride / 2), residual units before or after.

    With `early` the strided convolution comes first, so that the residual units run at the lower rate (GenAE); without
    it they run at the higher one (DAC, Oobleck).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int,
        dilations: Sequence[int],
        kernel: int,
        separable: bool,
        early: bool,
        activation: Activation,
    ) -> None:
        """Builds the stage; `dilations` has one entry a residual unit."""
        super().__init__()
        self.stride = stride
        down = [
            activation(channels_in),
            conv(channels_in, channels_out, 2 * stride, stride=stride, padding=-(-stride // 2)),
        ]
        units = residual_units(
            channels_out if early else channels_in,
            dilations,
            kernel=kernel,
            separable=separable,
            activation=activation,
        )
        self.early, self.units = early, nn.Sequential(*units)
        self.down = nn.Sequential(*down)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels_in, stride * n)` to `(batch, channels_out, n)`."""
        return self.units(self.down(x)) if self.early else self.down(self.units(x))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """See the module."""
        if self.early:
            first, last = _units_reach(self.units, first, last)
        stride = self.stride
        first, last = conv_reach(first, last, 2 * stride, stride=stride, padding=-(-stride // 2))
        return (first, last) if self.early else _units_reach(self.units, first, last)


class UpStage(nn.Module):
    """Raises the rate by `stride` with a transposed convolution of kernel 2 * stride, then residual units."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        stride: int,
        dilations: Sequence[int],
        kernel: int,
        separable: bool,
        activation: Activation,
    ) -> None:
        """Builds the stage; `dilations` has one entry a residual unit."""
        super().__init__()
        self.stride, self.padding = stride, -(-stride // 2)
        up = nn.ConvTranspose1d(channels_in, channels_out, 2 * stride, stride, self.padding, output_padding=stride % 2)
        units = residual_units(channels_out, dilations, kernel=kernel, separable=separable, activation=activation)
        self.up = nn.Sequential(activation(channels_in), weight_norm(up))
        self.units = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels_in, n)` to `(batch, channels_out, stride * n)`."""
        return self.units(self.up(x))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """See the module."""
        first, last = _units_reach(self.units, first, last)
        return conv_transpose_reach(first, last, 2 * self.stride, stride=self.stride, padding=self.padding)


def down_stages(
    channels: Sequence[int],
    strides: Sequence[int],
    *,
    dilations: Sequence[int],
    kernel: int,
    separable: bool,
    early: bool,
    activation: Activation,
) -> list[DownStage]:
    """One `DownStage` for each stride.

    Args:
        channels: width before the first stage and after each.
        strides: of the stages, from audio on.
        dilations: see `DownStage`, as what follows.
        kernel: likewise.
        separable: likewise.
        early: likewise.
        activation: likewise.

    Raises:
        PartitaError: there is not one width more than strides.
    """
    return [
        DownStage(
            channels_in,
            channels_out,
            stride=stride,
            dilations=dilations,
            kernel=kernel,
            separable=separable,
            early=early,
            activation=activation,
        )
        for channels_in, channels_out, stride in _widths(channels, strides)
    ]


def up_stages(
    channels: Sequence[int],
    strides: Sequence[int],
    *,
    dilations: Sequence[int],
    kernel: int,
    separable: bool,
    activation: Activation,
) -> list[UpStage]:
    """One `UpStage` for each stride, from the latents on; see `down_stages`."""
    return [
        UpStage(
            channels_in,
            channels_out,
            stride=stride,
            dilations=dilations,
            kernel=kernel,
            separable=separable,
            activation=activation,
        )
        for channels_in, channels_out, stride in _widths(channels, strides)
    ]


def _widths(channels: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int, int]]:
    if len(channels) != len(strides) + 1:
        raise PartitaError(
            f"{len(strides)} strides need {len(strides) + 1} channel widths, before the first stage and after each, "
            f"not {len(channels)}"
        )
    return list(zip(channels[:-1], channels[1:], strides))


def _units_reach(units: nn.Sequential, first: int, last: int) -> tuple[int, int]:
    for unit in units:
        assert isinstance(unit, ResidualUnit)
        first, last = unit.reach(first, last)
    return first, last
