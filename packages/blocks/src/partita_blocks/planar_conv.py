"""Convolution layers that train fast on a CPU, with the parameters and results of torch's.

In training, float32 tensors go through kernels of our own (`native/convolution.hpp`), which avoid the reordering of
tensors in torch's CPU library and fill the registers whatever the number of channels; pointwise convolutions are matrix
products. Inference, tracing, other devices and other dtypes take torch's path.
"""

from typing import Any, cast

import torch
from partita_core import TypedModule
from torch import Tensor, nn

from .native.serving import serves_training
from .tensors import is_plain

# Samples below which torch's one-dimensional convolutions are as fast, if they are not depthwise.
_MIN_LENGTH = 512

# Channels below which torch's two-dimensional convolutions leave most of a vector register empty.
_FEW_CHANNELS = 8


class Conv1d(nn.Conv1d, TypedModule):
    """`nn.Conv1d` with zero padding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _is_pointwise(self) and input.dim() == 3 and input.device.type == "cpu" and is_plain(input):
            rows = weight[:, :, 0].expand(len(input), -1, -1)
            return rows @ input if bias is None else torch.baddbmm(bias[:, None], rows, input)
        if not _trains(self, input, weight) or (input.shape[-1] < _MIN_LENGTH and self.groups == 1):
            return super()._conv_forward(input, weight, bias)
        from .native._convolution_cpu import Geometry, convolve

        padding = cast(tuple[int], self.padding)
        geometry = Geometry((self.stride[0], 1), (padding[0], 0), self.dilation[0], self.groups)
        return convolve(input.unsqueeze(-1), weight.unsqueeze(-1), bias, geometry).squeeze(-1)


class ConvTranspose1d(nn.ConvTranspose1d, TypedModule):
    """`nn.ConvTranspose1d` with zero padding."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map `(batch, in, length)` to `(batch, out, longer)`."""
        trains = output_size is None and _trains(self, input, self.weight)
        if not trains or input.shape[-1] * self.stride[0] < _MIN_LENGTH:
            return super().forward(input, output_size)
        from .native._convolution_cpu import Geometry, convolve_transposed

        padding = cast(tuple[int], self.padding)
        geometry = Geometry((self.stride[0], 1), (padding[0], 0), self.dilation[0], self.groups)
        weight, extra = self.weight.unsqueeze(-1), (self.output_padding[0], 0)
        return convolve_transposed(input.unsqueeze(-1), weight, self.bias, geometry, extra).squeeze(-1)


class Conv2d(nn.Conv2d, TypedModule):
    """`nn.Conv2d` with zero padding; the kernels serve layers with few input or output channels."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        few = min(self.in_channels, self.out_channels) < _FEW_CHANNELS
        if not few or not _trains(self, input, weight):
            return super()._conv_forward(input, weight, bias)
        from .native._convolution_cpu import Geometry, convolve

        padding, stride = cast(tuple[int, int], self.padding), cast(tuple[int, int], self.stride)
        return convolve(input, weight, bias, Geometry(stride, padding, self.dilation[0], self.groups))


def _is_pointwise(layer: nn.Conv1d) -> bool:
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.groups, layer.padding_mode)
    return shape == ((1,), (1,), (0,), 1, "zeros")


def _trains(layer: Any, x: Tensor, weight: Tensor) -> bool:
    """True if a gradient is wanted, and the kernels support these tensors and this layer."""
    if not serves_training(x, weight, layer.bias):
        return False
    if x.dim() != weight.dim() or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    reach = [step * (size - 1) for step, size in zip(layer.dilation, layer.kernel_size)]
    if x.shape[1] != layer.in_channels or any(size <= last for size, last in zip(x.shape[2:], reach)):
        return False  # torch raises, or pads
    if any(step > 1 for step in layer.dilation[1:]) or (layer.dilation[0] > 1 and layer.stride[0] > 1):
        return False
    return True
