"""Streamable 2-D convolutions over time and frequency: causal in time, "same" padding in frequency.

Tensors are `(batch, channels, frames, bins)`; kernels and strides are (time, frequency). A layer takes a state, its
last input frames, and returns the next state; `init_state` is silence. A full recording and a piece of one are
processed the same way. The layers keep the memory format `torch.channels_last`, in which they are fastest on a CPU.

Every layer has a method `reach`: the first and last input frame that the output frames `first` to `last` depend on.
"""

import math
from abc import ABC, abstractmethod
from math import prod
from typing import Any

import torch
from einops import rearrange
from partita_core import PartitaError, TypedModule
from torch import Tensor, nn
from torch.nn import functional as F

from .convolutions import conv_reach, conv_transpose_reach
from .planar_conv import Conv2d
from .pointwise import elu

Pair = tuple[int, int]
"""Values for time and frequency."""


class CausalLayer(TypedModule, ABC):
    """Interface of the layers.

    Attributes:
        stride: factors (time, frequency) by which the layer lowers or raises both resolutions.

    Example:
        >>> layer = DownUnit2d(2, 16, stride=(1, 4))
        >>> state = layer.init_state(1, 480, device=torch.device("cpu"), dtype=torch.float32)
        >>> y, state = layer(torch.randn(1, 2, 10, 480), state)  # streaming, some frames at a time
        >>> y.shape
        torch.Size([1, 16, 10, 120])
    """

    stride: Pair

    @abstractmethod
    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """State before the first frame of `bins` bins: zeros."""

    @abstractmethod
    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Process frames, and return the output and the next state; nothing is changed in place.

        Args:
            x: at least one frame, and a multiple of the stride in time for layers that lower the rate.
            state: state after the frames before.
        """

    @abstractmethod
    def reach(self, first: int, last: int) -> Pair:
        """First and last input frame that the output frames `first` to `last` depend on."""


class CausalConv2d(CausalLayer):
    """Convolution that lowers both resolutions by its stride, with a kernel at least as long as it."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: Pair, stride: Pair) -> None:
        super().__init__()
        self.stride, self.kernel = stride, kernel[0]
        self.channels, self.past = channels_in, kernel[0] - stride[0]
        self.conv = Conv2d(channels_in, channels_out, kernel, stride, padding=(0, (kernel[1] - stride[1] + 1) // 2))

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Zero frames before the first, `(batch, channels_in, past, bins)`."""
        return _zeros(batch_size, self.channels, self.past, bins, device, dtype)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, channels_in, stride * n, bins)` to `(batch, channels_out, n, bins / stride)`."""
        x, state = _join(state, x)
        return self.conv(x), state

    def reach(self, first: int, last: int) -> Pair:
        """First and last input frame that the output frames `first` to `last` depend on."""
        return conv_reach(first, last, self.kernel, stride=self.stride[0], padding=self.past)


class CausalConvTranspose2d(CausalLayer):
    """Transposed convolution that raises both resolutions by its stride, with a kernel at least as long as it."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: Pair, stride: Pair) -> None:
        super().__init__()
        self.stride, self.kernel = stride, kernel[0]
        self.channels, self.past = channels_in, -(-(kernel[0] - stride[0]) // stride[0])
        overlap = kernel[1] - stride[1]
        padding, output_padding = (0, (overlap + 1) // 2), (0, overlap % 2)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, kernel, stride, padding, output_padding)

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Zero frames before the first, `(batch, channels_in, past, bins)`."""
        return _zeros(batch_size, self.channels, self.past, bins, device, dtype)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, channels_in, n, bins)` to `(batch, channels_out, stride * n, stride * bins)`."""
        begin, length = self.past * self.stride[0], x.shape[2] * self.stride[0]
        x, state = _join(state, x)
        return self.conv(x)[:, :, begin : begin + length], state

    def reach(self, first: int, last: int) -> Pair:
        """First and last input frame that the output frames `first` to `last` depend on."""
        return conv_transpose_reach(first, last, self.kernel, stride=self.stride[0], padding=0)


class DownUnit2d(CausalLayer):
    """Downsampling residual unit: ELU, convolution 3x3, ELU, strided convolution (SpectroStream, arXiv 2508.05207).

    The kernel of the strided convolution is twice the stride, at least 3. The shortcut is an average pool, followed by
    a pointwise convolution if the widths differ. A stride of (1, 1) keeps both resolutions.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: Pair) -> None:
        super().__init__()
        self.stride = stride
        self.inner = CausalConv2d(channels_in, channels_in, kernel=(3, 3), stride=(1, 1))
        self.outer = CausalConv2d(channels_in, channels_out, kernel=_kernel(stride), stride=stride)
        self.shortcut = _pointwise(channels_in, channels_out)

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """States of the two convolutions."""
        inner = self.inner.init_state(batch_size, bins, device=device, dtype=dtype)
        return inner, self.outer.init_state(batch_size, bins, device=device, dtype=dtype)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map `(batch, channels_in, stride * n, bins)` to `(batch, channels_out, n, bins / stride)`."""
        inner, outer = state
        y, inner = self.inner(elu(x), inner)
        y, outer = self.outer(elu(y), outer)
        pooled = x if self.stride == (1, 1) else F.avg_pool2d(x, self.stride)
        return y + self.shortcut(pooled), (inner, outer)

    def reach(self, first: int, last: int) -> Pair:
        """First and last input frame that the output frames `first` to `last` depend on."""
        return self.inner.reach(*self.outer.reach(first, last))


class UpUnit2d(CausalLayer):
    """Upsampling residual unit: ELU, transposed convolution, ELU, convolution 3x3 (SpectroStream, arXiv 2508.05207).

    The kernel of the transposed convolution is twice the stride, at least 3; for stride (1, 1), which keeps both
    resolutions, it is an ordinary convolution. The shortcut repeats frames and bins, after a pointwise convolution if
    the widths differ.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: Pair) -> None:
        super().__init__()
        self.stride = stride
        first = CausalConv2d if stride == (1, 1) else CausalConvTranspose2d
        self.inner = first(channels_in, channels_out, kernel=_kernel(stride), stride=stride)
        self.outer = CausalConv2d(channels_out, channels_out, kernel=(3, 3), stride=(1, 1))
        self.shortcut = _pointwise(channels_in, channels_out)

    def init_state(self, batch_size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Any:
        """States of the two convolutions."""
        inner = self.inner.init_state(batch_size, bins, device=device, dtype=dtype)
        return inner, self.outer.init_state(batch_size, bins * self.stride[1], device=device, dtype=dtype)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map `(batch, channels_in, n, bins)` to `(batch, channels_out, stride * n, stride * bins)`."""
        inner, outer = state
        y, inner = self.inner(elu(x), inner)
        y, outer = self.outer(elu(y), outer)
        # Broadcast over the patches, which avoids a copy of the shortcut with repeated frames and bins.
        patches = rearrange(y, "b c (n s) (bins t) -> b c n s bins t", s=self.stride[0], t=self.stride[1])
        y = patches + self.shortcut(x)[:, :, :, None, :, None]
        return rearrange(y, "b c n s bins t -> b c (n s) (bins t)"), (inner, outer)

    def reach(self, first: int, last: int) -> Pair:
        """First and last input frame that the output frames `first` to `last` depend on."""
        return self.inner.reach(*self.outer.reach(first, last))


def coarsest_bins(bins: int, strides: tuple[Pair, ...]) -> int:
    """Number of bins after layers with these strides.

    Raises:
        PartitaError: the strides do not divide the bins.
    """
    stride = prod(frequency for _, frequency in strides)
    if bins % stride:
        raise PartitaError(
            f"{bins} bins are not divisible by {stride}, the product of the strides in frequency; "
            f"choose strides whose product divides {bins}"
        )
    return bins // stride


@torch.no_grad()
def init_truncated_normal(module: nn.Module, std: float | None) -> None:
    """Initialize convolutions and linear layers from a normal distribution truncated at two standard deviations.

    Biases are set to zero.

    Args:
        module: module whose layers are initialized, at any depth.
        std: standard deviation before truncation, the same for all layers; None for `n ** -0.5`, with n the number of
            inputs per output, which keeps the scale of the signal (LeCun et al., 1998).
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            scale = _inputs(layer) ** -0.5 if std is None else std
            # By the inverse of the distribution: torch's own rejection loop does not run on meta tensors.
            bound = math.erf(math.sqrt(2))
            weight = torch.empty_like(layer.weight).uniform_(-bound, bound).erfinv() * (scale * math.sqrt(2))
            layer.weight = nn.Parameter(weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _inputs(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * prod(layer.kernel_size) / prod(layer.stride)
    return layer.weight[0].numel()


def _kernel(stride: Pair) -> Pair:
    return max(3, 2 * stride[0]), max(3, 2 * stride[1])


def _pointwise(channels_in: int, channels_out: int) -> nn.Module:
    if channels_in == channels_out:
        return nn.Identity()
    return nn.Conv2d(channels_in, channels_out, 1)


def _zeros(batch_size: int, channels: int, frames: int, bins: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.zeros(batch_size, frames, bins, channels, device=device, dtype=dtype).permute(0, 3, 1, 2)


def _join(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` after its past, and the last frames as the next past, copied so that the rest is not kept in memory."""
    joined = torch.cat([past.to(x), x], dim=2)
    return joined, joined[:, :, joined.shape[2] - past.shape[2] :].clone()
