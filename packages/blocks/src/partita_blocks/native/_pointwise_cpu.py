"""Activations and group norm on a CPU in float32 with their gradients: the kernels of `pointwise.hpp`."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .build import loaded_kernels

_ELU, _SILU = 0, 1


def elu(x: Tensor) -> Tensor:
    """ELU of a tensor in any memory format."""
    y: Any = _Activation.apply(x, _ELU)
    return y


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor in any memory format."""
    y: Any = _Activation.apply(x, _SILU)
    return y


def group_norm(x: Tensor, gains: Tensor, groups: int, eps: float) -> Tensor:
    """Group norm of `(batch, channels, rows, columns)`, channels-last, times gains `(batch, channels)`."""
    y: Any = _GroupNorm.apply(x, gains, groups, eps)
    return y


def fits_group_norm(x: Tensor) -> bool:
    """True if the sizes are multiples of those of a vector."""
    row = max(16, x.shape[1])
    return x.dim() == 4 and row % 16 == 0 and row % x.shape[1] == 0 and x[0].numel() % row == 0


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = _dense(x)
        y = torch.empty_like(x)
        loaded_kernels().partita_activate(x.data_ptr(), y.data_ptr(), x.numel(), kind, torch.get_num_threads())
        ctx.save_for_backward(y if kind == _ELU else x)
        ctx.kind = kind
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (at,) = ctx.saved_tensors
        grad, by_x = _like(grad, at), torch.empty_like(at)
        tensors = (at.data_ptr(), grad.data_ptr(), by_x.data_ptr())
        loaded_kernels().partita_activate_backward(*tensors, at.numel(), ctx.kind, torch.get_num_threads())
        return by_x, None


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gains: Tensor, groups: int, eps: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gains = x.contiguous(memory_format=torch.channels_last), gains.contiguous()
        y, statistics = torch.empty_like(x), x.new_empty(x.shape[0], groups, 2)
        ctx.sizes = x.shape[0], x.shape[2] * x.shape[3], x.shape[1], groups, eps
        tensors = (x.data_ptr(), gains.data_ptr(), y.data_ptr(), statistics.data_ptr())
        loaded_kernels().partita_group_norm(*tensors, *ctx.sizes, torch.get_num_threads())
        ctx.save_for_backward(x, gains, statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gains, statistics = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        by_x, by_gains = torch.empty_like(x), torch.empty_like(gains)
        tensors = (x, gains, statistics, grad, by_x, by_gains)
        loaded_kernels().partita_group_norm_backward(
            *(tensor.data_ptr() for tensor in tensors), *ctx.sizes, torch.get_num_threads()
        )
        return by_x, by_gains, None, None


def _dense(x: Tensor) -> Tensor:
    """`x`, copied unless its elements are contiguous in some order."""
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def _like(x: Tensor, other: Tensor) -> Tensor:
    """`x` with the strides of a dense tensor."""
    return x if x.stride() == other.stride() else torch.empty_like(other).copy_(x)
