"""Convolutions on a CPU in float32 with their gradients: `convolution.hpp` as autograd functions.

Two-dimensional with zero padding, in any memory format; one-dimensional convolutions have a single column. Rows have a
stride or a dilation, columns a stride.
"""

from ctypes import Structure, c_long, pointer
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .build import loaded_kernels


class Geometry(NamedTuple):
    """Stride, padding and dilation of a convolution, each in both dimensions; and its number of groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1


class _Convolution(Structure):
    """`Convolution` of `convolution.hpp`."""

    _fields_ = (
        *((name, c_long) for name in ("batch", "groups", "inputs", "outputs")),
        *((name, c_long * 2) for name in ("kernel", "stride", "padding")),
        ("dilation", c_long),
        *((name, c_long * 2) for name in ("input", "output")),
        *((name, c_long * 4) for name in ("input_strides", "output_strides")),
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolution of `(batch, in, rows, columns)` with a weight `(out, in / groups, kernel...)`, differentiable."""
    y: Any = _Convolve.apply(x, weight, bias, geometry)
    return y


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, output_padding: tuple[int, int]
) -> Tensor:
    """Transposed convolution with a weight `(in, out / groups, kernel...)`, differentiable."""
    y: Any = _ConvolveTransposed.apply(x, weight, bias, geometry, output_padding)
    return y


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        weight = weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return _forward(x, weight, bias, geometry, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        return (
            _transposed(grad, weight, None, ctx.geometry, x.shape, x) if by_x else None,
            _weights(x, grad, weight, ctx.geometry) if by_weight else None,
            grad.sum((0, 2, 3)) if by_bias else None,
            None,
        )


class _ConvolveTransposed(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        output_padding: tuple[int, int],
    ) -> Tensor:
        weight = weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        size = [
            (x.shape[d + 2] - 1) * geometry.stride[d]
            - 2 * geometry.padding[d]
            + (weight.shape[d + 2] - 1) * (1 if d else geometry.dilation)
            + output_padding[d]
            + 1
            for d in range(2)
        ]
        shape = torch.Size([x.shape[0], weight.shape[1] * geometry.groups, *size])
        return _transposed(x, weight, bias, geometry, shape, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, *_ = ctx.needs_input_grad
        return (
            _forward(grad, weight, None, ctx.geometry, x) if by_x else None,
            _weights(grad, x, weight, ctx.geometry) if by_weight else None,
            grad.sum((0, 2, 3)) if by_bias else None,
            None,
            None,
        )


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, like: Tensor) -> Tensor:
    """Convolution in the memory format of `like`."""
    size = [
        (x.shape[d + 2] + 2 * geometry.padding[d] - (weight.shape[d + 2] - 1) * (1 if d else geometry.dilation) - 1)
        // geometry.stride[d]
        + 1
        for d in range(2)
    ]
    y = _empty(torch.Size([x.shape[0], weight.shape[0], *size]), like)
    _call("partita_convolve", x, y, weight, geometry, x, weight, _address(bias), y)
    return y


def _transposed(
    y: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, shape: torch.Size, like: Tensor
) -> Tensor:
    """Transposed convolution in the memory format of `like`."""
    x = _empty(shape, like)
    _call("partita_convolve_transposed", x, y, weight, geometry, y, weight, _address(bias), x)
    return x


def _weights(x: Tensor, y: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    by_weight = torch.empty_like(weight)
    _call("partita_convolve_weights", x, y, weight, geometry, x, y, by_weight)
    return by_weight


def _empty(shape: torch.Size, like: Tensor) -> Tensor:
    """New tensor with the memory format of another one."""
    last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last if last else torch.contiguous_format)


def _address(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _call(name: str, x: Tensor, y: Tensor, weight: Tensor, geometry: Geometry, *tensors: Tensor | None) -> None:
    """Call a kernel on the convolution that maps the shape of x to that of y."""
    outputs, inputs, *kernel = weight.shape
    shape = _Convolution(
        x.shape[0],
        geometry.groups,
        inputs,
        outputs // geometry.groups,
        *(_pair(values) for values in (kernel, geometry.stride, geometry.padding)),
        geometry.dilation,
        _pair(x.shape[2:]),
        _pair(y.shape[2:]),
        (c_long * 4)(*x.stride()),
        (c_long * 4)(*y.stride()),
    )
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    getattr(loaded_kernels(), name)(pointer(shape), *addresses, torch.get_num_threads())


def _pair(values: Any) -> Any:
    return (c_long * 2)(*values)
