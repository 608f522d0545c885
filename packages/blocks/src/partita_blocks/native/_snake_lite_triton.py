"""SnakeLite and its gradients on a GPU: one kernel each, so that every tensor is read or written once.

Half-precision tensors are computed in float32. The formula is that of `activations`.
"""

import math
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

# Elements per program: 16 per thread, so that each thread has several 16-byte loads in flight.
_TILE = 2048
_MIN_COLUMNS = 16
# Explicit because the default changes with Triton 3.10.
_OPTIONS = {"enable_fp_fusion": True}

# sin^2(pi f) = u (C1 + u (C2 + u (C3 + u C4))) with u = f^2, up to f^8.
_C1 = tl.constexpr(math.pi**2)
_C2 = tl.constexpr(-(math.pi**4) / 3)
_C3 = tl.constexpr(2 * math.pi**6 / 45)
_C4 = tl.constexpr(-(math.pi**8) / 315)
_ONE_BY_PI = tl.constexpr(1 / math.pi)


@triton.jit
def _tile(beta, rows, channels, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of the tile of this program, the mask of those inside the tensor, and the betas of its rows."""
    across = tl.cdiv(length, COLUMNS)
    tile = tl.program_id(0)
    row = tile // across * ROWS + tl.arange(0, ROWS)
    column = (tile % across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    # In 64 bits: a batch at the audio sample rate may have more than 2^31 elements.
    offsets = row.to(tl.int64)[:, None] * length + column[None, :]
    inside = (row < rows)[:, None] & (column < length)[None, :]
    return offsets, inside, tl.load(beta + row % channels)[:, None]


@triton.jit
def _wrap(x, beta):
    """`beta x / pi` minus the nearest integer."""
    turns = x * (beta * _ONE_BY_PI)
    # Every float32 from 2^23 on is an integer, and adding 0.5 would round to the next one.
    return tl.where(tl.abs(turns) >= 8388608.0, 0.0, turns - tl.floor(turns + 0.5))


@triton.jit
def _forward_kernel(x, beta, y, rows, channels, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    offsets, inside, b = _tile(beta, rows, channels, length, ROWS, COLUMNS)
    wide = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    f = _wrap(wide, b)
    u = f * f
    p = u * (_C1 + u * (_C2 + u * (_C3 + u * _C4)))
    tl.store(y + offsets, (wide + p * (1 / b)).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(x, beta, grad, by_x, sums, rows, channels, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    offsets, inside, b = _tile(beta, rows, channels, length, ROWS, COLUMNS)
    wide = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
    f = _wrap(wide, b)
    u = f * f
    p = u * (_C1 + u * (_C2 + u * (_C3 + u * _C4)))
    slope = f * (2 * _C1 + u * (4 * _C2 + u * (6 * _C3 + u * (8 * _C4)))) * _ONE_BY_PI
    tl.store(by_x + offsets, (g + g * slope).to(by_x.dtype.element_ty), mask=inside)
    # One sum per row of the tile, added up by torch: the order of atomic additions would vary between calls.
    by_beta = tl.sum(g * (slope * wide - p * (1 / b)) * (1 / b), axis=1)
    tl.store(sums + tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), by_beta)


def _tiling(x: Tensor) -> tuple[int, int, list[Any]]:
    """Number of tiles down and across, and the sizes of x and of a tile as arguments of the kernels."""
    batch, channels, length = x.shape
    columns = min(_TILE, max(_MIN_COLUMNS, triton.next_power_of_2(length)))
    rows = _TILE // columns
    sizes = [batch * channels, channels, length, rows, columns]
    return triton.cdiv(batch * channels, rows), triton.cdiv(length, columns), sizes


def forward(x: Tensor, beta: Tensor) -> Tensor:
    """SnakeLite of a non-empty `(batch, channels, length)` with betas `(channels, 1)` in float32."""
    x, beta = x.contiguous(), beta.contiguous()
    y = torch.empty_like(x)
    down, across, sizes = _tiling(x)
    with torch.cuda.device_of(x):
        _forward_kernel[(down * across,)](x, beta, y, *sizes, **_OPTIONS)  # pyright: ignore[reportIndexIssue]
    return y


def backward(x: Tensor, beta: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, in its dtype, and of beta, identical at each call."""
    x, beta, grad = x.contiguous(), beta.contiguous(), grad.contiguous()
    by_x = torch.empty_like(x)
    batch, channels, _ = x.shape
    down, across, sizes = _tiling(x)
    sums = x.new_empty(down, across, sizes[-2], dtype=torch.float32)
    with torch.cuda.device_of(x):
        _backward_kernel[(down * across,)](x, beta, grad, by_x, sums, *sizes, **_OPTIONS)  # pyright: ignore[reportIndexIssue]
    by_row = sums.sum(1).flatten()[: batch * channels]
    return by_x, by_row.view(batch, channels).sum(0).reshape(beta.shape)
