"""Weight-normalized 1-D convolutions of autoencoders: residual units, downsampling and upsampling stages.

Every block has a method `reach`: the first and last input that the outputs `first` to `last` depend on. Encoders and
decoders compute their context from these.
"""

from collections.abc import Callable, Sequence

from partita_core import PartitaError, TypedModule
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .planar_conv import Conv1d, ConvTranspose1d

Activation = Callable[[int], nn.Module]
"""Constructor of an activation, called with the number of channels."""


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
    """Weight-normalized `nn.Conv1d`; `padding=None` keeps the length at stride 1."""
    padding = (kernel - 1) // 2 * dilation if padding is None else padding
    layer = Conv1d(channels_in, channels_out, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias)
    return weight_norm(layer)


def conv_reach(
    first: int, last: int, kernel: int, *, stride: int = 1, dilation: int = 1, padding: int | None = None
) -> tuple[int, int]:
    """First and last input that the outputs `first` to `last` of a convolution depend on."""
    padding = (kernel - 1) // 2 * dilation if padding is None else padding
    return first * stride - padding, last * stride - padding + (kernel - 1) * dilation


def conv_transpose_reach(first: int, last: int, kernel: int, *, stride: int, padding: int) -> tuple[int, int]:
    """First and last input that the outputs `first` to `last` of a transposed convolution depend on."""
    return -((kernel - 1 - padding - first) // stride), (last + padding) // stride


class ResidualUnit(TypedModule):
    """Residual unit `x + pointwise(act(conv(act(x))))` with a dilated convolution.

    Args:
        channels: width of input and output.
        kernel: kernel size of the dilated convolution, an odd number.
        dilation: its dilation.
        separable: whether it is a depthwise, then a pointwise convolution (GenAE, arXiv 2602.15749).
        activation: constructor of the activations.
    """

    def __init__(self, channels: int, *, kernel: int, dilation: int, separable: bool, activation: Activation) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        if separable:
            dilated = [
                conv(channels, channels, kernel, dilation=dilation, groups=channels),
                conv(channels, channels, 1),
            ]
        else:
            dilated = [conv(channels, channels, kernel, dilation=dilation)]
        self.layers = nn.Sequential(activation(channels), *dilated, activation(channels), conv(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, length)` to the same shape."""
        return x + self.layers(x)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """First and last input that the outputs `first` to `last` depend on."""
        return conv_reach(first, last, self.kernel, dilation=self.dilation)


def residual_units(
    channels: int, dilations: Sequence[int], *, kernel: int, separable: bool, activation: Activation
) -> list[ResidualUnit]:
    """One residual unit per dilation; see `ResidualUnit`."""
    return [
        ResidualUnit(channels, kernel=kernel, dilation=dilation, separable=separable, activation=activation)
        for dilation in dilations
    ]


class DownStage(TypedModule):
    """Downsampling by `stride`, with residual units before or after.

    The strided convolution has kernel 2 * stride and padding ceil(stride / 2).

    Args:
        channels_in: width of the input.
        channels_out: width of the output.
        stride: factor by which the rate is lowered.
        dilations: dilation of each residual unit.
        kernel: kernel size of the residual units.
        separable: whether their dilated convolutions are separable.
        early: whether the strided convolution comes first, so that the residual units run at the lower rate (GenAE);
            otherwise they run at the higher one (DAC, Oobleck).
        activation: constructor of the activations.

    Example:
        >>> settings = {"dilations": (1, 3, 9), "kernel": 7, "separable": True, "activation": SnakeLite}
        >>> stage = DownStage(2, 32, stride=6, early=True, **settings)
        >>> stage(torch.randn(1, 2, 600)).shape, stage.reach(50, 50)  # output 50 depends on inputs 63 to 542
        (torch.Size([1, 32, 100]), (63, 542))
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
        """Map `(batch, channels_in, stride * n)` to `(batch, channels_out, n)`."""
        return self.units(self.down(x)) if self.early else self.down(self.units(x))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """First and last input that the outputs `first` to `last` depend on."""
        if self.early:
            first, last = _units_reach(self.units, first, last)
        stride = self.stride
        first, last = conv_reach(first, last, 2 * stride, stride=stride, padding=-(-stride // 2))
        return (first, last) if self.early else _units_reach(self.units, first, last)


class UpStage(TypedModule):
    """Upsampling by `stride` with a transposed convolution of kernel 2 * stride, then residual units.

    Args:
        channels_in: width of the input.
        channels_out: width of the output.
        stride: factor by which the rate is raised.
        dilations: dilation of each residual unit.
        kernel: kernel size of the residual units.
        separable: whether their dilated convolutions are separable.
        activation: constructor of the activations.
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
        activation: Activation,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, -(-stride // 2)
        up = ConvTranspose1d(channels_in, channels_out, 2 * stride, stride, self.padding, output_padding=stride % 2)
        units = residual_units(channels_out, dilations, kernel=kernel, separable=separable, activation=activation)
        self.up = nn.Sequential(activation(channels_in), weight_norm(up))
        self.units = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels_in, n)` to `(batch, channels_out, stride * n)`."""
        return self.units(self.up(x))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """First and last input that the outputs `first` to `last` depend on."""
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
    """One `DownStage` per stride; see there for the other arguments.

    Args:
        channels: widths before the first stage and after each stage.
        strides: strides of the stages, from audio on.
        dilations: see `DownStage`.
        kernel: see `DownStage`.
        separable: see `DownStage`.
        early: see `DownStage`.
        activation: see `DownStage`.

    Raises:
        PartitaError: there is not exactly one width more than strides.
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
    """One `UpStage` per stride, from the latents on; see `down_stages`."""
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
            f"{len(channels)} channel widths for {len(strides)} strides; "
            f"give {len(strides) + 1}: before the first stage and after each"
        )
    return list(zip(channels[:-1], channels[1:], strides))


def _units_reach(units: nn.Sequential, first: int, last: int) -> tuple[int, int]:
    for unit in units:
        assert isinstance(unit, ResidualUnit)
        first, last = unit.reach(first, last)
    return first, last
