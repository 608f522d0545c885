"""2-D convolutions over time and frequency that can be streamed: causal in time, "same" in frequency.

Tensors are `(batch, channels, frames, bins)`; kernels and strides are (time, frequency). A layer takes with its input
what it remembers of the frames before, and returns that anew; `init_state` gives silence. So the whole of a recording
and a piece of it go one way. On a CPU they are fastest in `torch.channels_last`, which they keep once given it.

Every layer tells its `reach`: for frames `first` to `last` of its output, the first and last frame it sees.
"""

import math
from abc import ABC, abstractmethod
from math import prod
from typing import Any

import torch
from partita_core import PartitaError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm as normalized

from .convolutions import conv_reach, conv_transpose_reach

Pair = tuple[int, int]


class CausalLayer(nn.Module, ABC):
    """What the layers here have in common.

    Attributes:
        stride: (time, frequency), by which the layer lowers or raises both rates.
    """

    stride: Pair

    @abstractmethod
    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """What there is to remember before the first frame of `bins` bins: zeros."""

    @abstractmethod
    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Maps frames, at least one, whole multiples of the stride where that lowers their rate; returns a new state.

        Nothing is changed in place.
        """

    @abstractmethod
    def reach(self, first: int, last: int) -> Pair:
        """See the module."""


class CausalConv2d(CausalLayer):
    """A convolution that lowers the rates by its stride."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: Pair, stride: Pair, weight_norm: bool) -> None:
        """Builds the convolution; the kernel is at least as long as the stride."""
        super().__init__()
        self.stride, self.kernel = stride, kernel[0]
        self.channels, self.past = channels_in, kernel[0] - stride[0]
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=(0, (kernel[1] - stride[1] + 1) // 2))
        self.conv = normalized(conv) if weight_norm else conv

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The frames before the first, `(batch, channels_in, past, bins)`."""
        return _silence(batch_size, self.channels, self.past, bins, device, dtype)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, channels_in, stride * n, bins)` to `(batch, channels_out, n, bins / stride)`."""
        x, state = _join(state, x)
        return self.conv(x), state

    def reach(self, first: int, last: int) -> Pair:
        """See the module."""
        return conv_reach(first, last, self.kernel, stride=self.stride[0], padding=self.past)


class CausalConvTranspose2d(CausalLayer):
    """A transposed convolution that raises the rates by its stride."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: Pair, stride: Pair, weight_norm: bool) -> None:
        """Builds the convolution; the kernel is at least as long as the stride."""
        super().__init__()
        self.stride, self.kernel = stride, kernel[0]
        self.channels, self.past = channels_in, -(-(kernel[0] - stride[0]) // stride[0])
        surplus = kernel[1] - stride[1]
        padding, back = (0, (surplus + 1) // 2), (0, surplus % 2)
        conv = nn.ConvTranspose2d(channels_in, channels_out, kernel, stride, padding, output_padding=back)
        self.conv = normalized(conv, dim=1) if weight_norm else conv

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The frames before the first, `(batch, channels_in, past, bins)`."""
        return _silence(batch_size, self.channels, self.past, bins, device, dtype)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, channels_in, n, bins)` to `(batch, channels_out, stride * n, stride * bins)`."""
        begin, length = self.past * self.stride[0], x.shape[2] * self.stride[0]
        x, state = _join(state, x)
        return self.conv(x)[:, :, begin : begin + length], state

    def reach(self, first: int, last: int) -> Pair:
        """See the module."""
        return conv_transpose_reach(first, last, self.kernel, stride=self.stride[0], padding=0)


class DownUnit2d(CausalLayer):
    """A residual unit that lowers the rates: ELU, convolution 3x3, ELU, strided convolution.

    The kernel of the second is twice the stride, at least 3; the shortcut is an average pool, with a pointwise
    convolution where widths differ (SpectroStream, arXiv 2508.05207).
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: Pair, weight_norm: bool) -> None:
        """Builds the unit; with stride (1, 1) it keeps the rates."""
        super().__init__()
        self.stride = stride
        self.inner = CausalConv2d(channels_in, channels_in, kernel=(3, 3), stride=(1, 1), weight_norm=weight_norm)
        self.outer = CausalConv2d(
            channels_in, channels_out, kernel=_kernel(stride), stride=stride, weight_norm=weight_norm
        )
        self.shortcut = _pointwise(channels_in, channels_out, weight_norm)

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """The states of its two convolutions."""
        inner = self.inner.init_state(batch_size, bins, device=device, dtype=dtype)
        return inner, self.outer.init_state(batch_size, bins, device=device, dtype=dtype)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`(batch, channels_in, stride * n, bins)` to `(batch, channels_out, n, bins / stride)`."""
        inner, outer = state
        y, inner = self.inner(F.elu(x), inner)
        y, outer = self.outer(F.elu(y), outer)
        pooled = x if self.stride == (1, 1) else F.avg_pool2d(x, self.stride)
        return y + self.shortcut(pooled), (inner, outer)

    def reach(self, first: int, last: int) -> Pair:
        """See the module."""
        return self.inner.reach(*self.outer.reach(first, last))


class UpUnit2d(CausalLayer):
    """A residual unit that raises the rates: ELU, transposed convolution, ELU, convolution 3x3.

    The kernel of the first is twice the stride, at least 3; without a stride it is a plain one. The shortcut repeats
    frames and bins, with a pointwise convolution before where widths differ (SpectroStream, arXiv 2508.05207).
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: Pair, weight_norm: bool) -> None:
        """Builds the unit; with stride (1, 1) it keeps the rates."""
        super().__init__()
        self.stride = stride
        first = CausalConv2d if stride == (1, 1) else CausalConvTranspose2d
        self.inner = first(channels_in, channels_out, kernel=_kernel(stride), stride=stride, weight_norm=weight_norm)
        self.outer = CausalConv2d(channels_out, channels_out, kernel=(3, 3), stride=(1, 1), weight_norm=weight_norm)
        self.shortcut = _pointwise(channels_in, channels_out, weight_norm)

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """The states of its two convolutions."""
        inner = self.inner.init_state(batch_size, bins, device=device, dtype=dtype)
        return inner, self.outer.init_state(batch_size, bins * self.stride[1], device=device, dtype=dtype)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`(batch, channels_in, n, bins)` to `(batch, channels_out, stride * n, stride * bins)`."""
        inner, outer = state
        y, inner = self.inner(F.elu(x), inner)
        y, outer = self.outer(F.elu(y), outer)
        # Added where they stand, the repeated frames and bins are never made.
        blocks = y.unflatten(3, (-1, self.stride[1])).unflatten(2, (-1, self.stride[0]))
        y = blocks + self.shortcut(x)[:, :, :, None, :, None]
        return y.flatten(4, 5).flatten(2, 3), (inner, outer)

    def reach(self, first: int, last: int) -> Pair:
        """See the module."""
        return self.inner.reach(*self.outer.reach(first, last))


def coarsest_bins(bins: int, strides: tuple[Pair, ...]) -> int:
    """The bins that layers of these strides leave of `bins`.

    Raises:
        PartitaError: they do not divide them.
    """
    stride = prod(frequency for _, frequency in strides)
    if bins % stride:
        raise PartitaError(
            f"a spectrum of {bins} bins cannot be lowered by {stride}, the product of the strides in frequency; "
            f"choose strides whose product divides {bins}"
        )
    return bins // stride


@torch.no_grad()
def init_truncated_normal(module: nn.Module, std: float | None) -> None:
    """Draws the weights of convolutions and linear layers within two standard deviations, and clears biases.

    Args:
        module: whose layers they are, at any depth.
        std: the same for all; None for `n ** -0.5`, with n the inputs that an output sums, so that every layer keeps
            the size of what passes (LeCun et al., 1998).
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            size = _inputs(layer) ** -0.5 if std is None else std
            # By the inverse of the distribution: torch's own draws until all fit, which shapes alone cannot tell.
            bound = math.erf(math.sqrt(2))
            weight = torch.empty_like(layer.weight).uniform_(-bound, bound).erfinv() * (size * math.sqrt(2))
            layer.weight = weight if hasattr(layer, "parametrizations") else nn.Parameter(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _inputs(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * prod(layer.kernel_size) / prod(layer.stride)
    return layer.weight[0].numel()


def _kernel(stride: Pair) -> Pair:
    return max(3, 2 * stride[0]), max(3, 2 * stride[1])


def _pointwise(channels_in: int, channels_out: int, weight_norm: bool) -> nn.Module:
    if channels_in == channels_out:
        return nn.Identity()
    conv = nn.Conv2d(channels_in, channels_out, 1)
    return normalized(conv) if weight_norm else conv


def _silence(
    batch_size: int, channels: int, frames: int, bins: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    return torch.zeros(batch_size, frames, bins, channels, device=device, dtype=dtype).permute(0, 3, 1, 2)


def _join(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` behind its past, and as much of the end as that was; a copy, which does not hold the rest in memory."""
    joined = torch.cat([past.to(x), x], dim=2)
    return joined, joined[:, :, joined.shape[2] - past.shape[2] :].clone()
