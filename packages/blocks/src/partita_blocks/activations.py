"""Periodic activations: Snake, its two-parameter form, and SnakeLite, a fast approximation without a sine.

Snake is `x + sin^2(a x) / a` (Ziyin et al. 2020, "Neural networks fail to learn periodic functions"). SnakeLite, by the
formula of an open reimplementation of GenAE (arXiv 2602.15749), wraps the argument to [-pi/2, pi/2], where the Taylor
polynomial of degree 8 is within 0.0121 of sin^2. Its forward and backward passes are one fused kernel each: in Triton
on a GPU, in C++ on a CPU for large float32 tensors (`native`). Other large tensors on a CPU are computed in chunks that
fit the cache.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from partita_core import TypedModule, upcast
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .tensors import is_plain

# sin^2(pi f) = u (P0 + u (P1 + u (P2 + u P3))) with u = f^2, up to f^8.
_P = (math.pi**2, -(math.pi**4) / 3, 2 * math.pi**6 / 45, -(math.pi**8) / 315)
# Its derivative with respect to pi f, divided by f.
_SLOPE = tuple(2 * (i + 1) * coefficient / math.pi for i, coefficient in enumerate(_P))

# Elements per chunk on a CPU: few enough that a chunk stays in the cache over all passes, many enough that the overhead
# of the calls is negligible.
_CHUNK = 2**18

# Output buffers for the steps of a formula; None allocates a new tensor, which compilers and vmap require.
_Buffers = Sequence[Tensor | None]


def _wrap(x: Tensor, beta: Tensor, buffers: _Buffers) -> Tensor:
    """`beta x / pi` minus the nearest integer."""
    turns = torch.mul(x, beta * (1 / math.pi), out=buffers[0])
    return turns.sub_(torch.round(turns, out=buffers[1]))


def _horner(u: Tensor, coefficients: Sequence[float], out: Tensor | None) -> Tensor:
    """Polynomial in `u` with these coefficients, constant first, with one pass over memory per degree."""
    *rest, before, last = coefficients
    p = torch.add(u.new_full((1,), before), u, alpha=last, out=out)
    for coefficient in reversed(rest):
        p = torch.addcmul(u.new_full((1,), coefficient), p, u, out=out)
    return p


def _snake_lite(x: Tensor, beta: Tensor, out: Tensor | None = None, buffers: _Buffers = (None, None)) -> Tensor:
    u = _wrap(x, beta, buffers).square_()
    return torch.addcmul(x, _horner(u, _P, buffers[1]).mul_(u), beta.reciprocal(), out=out)


def _snake_lite_gradients(
    x: Tensor, beta: Tensor, grad: Tensor, out: Tensor | None = None, buffers: _Buffers = (None, None, None)
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of beta summed over time, `(..., 1)`. The derivative of the wrap, a step, is zero."""
    f = _wrap(x, beta, buffers)
    u = torch.mul(f, f, out=buffers[1])
    change = _horner(u, _SLOPE, buffers[2]).mul_(f).mul_(grad)
    p = _horner(u, _P, buffers[0]).mul_(u).mul_(grad).sum(-1, keepdim=True)
    by_beta = (torch.mul(x, change, out=buffers[1]).sum(-1, keepdim=True) - p / beta) / beta
    return torch.add(change, grad, out=out), by_beta


def _chunks(x: Tensor, beta: Tensor, count: int) -> Iterator[tuple[tuple[slice, slice], Tensor, _Buffers]]:
    """Chunks of `(batch * channels, length)`, the betas of their rows, and buffers of their shape."""
    length = x.shape[-1]
    rows, columns = max(1, _CHUNK // length), min(length, _CHUNK)
    betas = beta.expand(x.shape[1], 1).repeat(x.shape[0], 1)
    buffers = betas.new_empty(count, rows, columns, dtype=torch.promote_types(x.dtype, beta.dtype))
    for i in range(0, len(betas), rows):
        for j in range(0, length, columns):
            chunk = slice(i, min(i + rows, len(betas))), slice(j, min(j + columns, length))
            yield chunk, betas[chunk[0]], buffers[:, : chunk[0].stop - i, : chunk[1].stop - j].unbind()


def _in_chunks(x: Tensor) -> bool:
    """True for tensors to compute in chunks if there is no kernel."""
    return x.device.type == "cpu" and is_plain(x) and x.dim() == 3 and x.numel() > _CHUNK


def _cpu_kernels() -> ModuleType | None:
    """The C++ kernels if they can run; imported late, since the first call builds them."""
    from .native import _snake_lite_cpu, kernels

    return _snake_lite_cpu if kernels() is not None else None


@cache
def _gpu_kernels(device: torch.device) -> ModuleType | None:
    """The Triton kernels if they can run; torch installs Triton together with CUDA."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from .native import _snake_lite_triton
    except ImportError:
        return None
    return _snake_lite_triton


def _fused(x: Tensor, beta: Tensor) -> ModuleType | None:
    """The kernels, if they support these tensors."""
    if beta.dtype != torch.float32 or beta.device != x.device:
        return None
    if _in_chunks(x):
        return _cpu_kernels() if x.dtype == torch.float32 else None
    supported = x.is_cuda and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return (
        _gpu_kernels(x.device) if supported and x.is_cuda and x.numel() > 0 and is_plain(x) and x.dim() == 3 else None
    )


def _forward(x: Tensor, beta: Tensor) -> Tensor:
    """SnakeLite in the dtype of x, computed in at least float32."""
    if kernels := _fused(x, beta):
        return kernels.forward(x, beta)
    if not _in_chunks(x):
        return _snake_lite(upcast(x), beta).to(x.dtype)
    x = x.contiguous()
    y = torch.empty_like(x)
    flat_x, flat_y = x.flatten(0, 1), y.flatten(0, 1)
    for chunk, betas, buffers in _chunks(x, beta, 2):
        _snake_lite(upcast(flat_x[chunk]), betas, flat_y[chunk], buffers)
    return y


def _backward(x: Tensor, beta: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, in its dtype, and of beta."""
    if kernels := _fused(x, beta):
        return kernels.backward(x, beta, grad)
    if not _in_chunks(x):
        by_x, by_beta = _snake_lite_gradients(upcast(x), beta, upcast(grad))
        return by_x.to(x.dtype), by_beta.sum(0)
    x, grad = x.contiguous(), grad.contiguous()
    by_x = torch.empty_like(x)
    flat_x, flat_grad, flat_by_x = x.flatten(0, 1), grad.flatten(0, 1), by_x.flatten(0, 1)
    sums = beta.new_zeros(len(flat_x), 1)
    for chunk, betas, buffers in _chunks(x, beta, 3):
        _, by_beta = _snake_lite_gradients(
            upcast(flat_x[chunk]), betas, upcast(flat_grad[chunk]), flat_by_x[chunk], buffers
        )
        sums[chunk[0]] += by_beta
    return by_x, sums.view(*x.shape[:2], 1).sum(0)


class _SnakeLiteFunction(torch.autograd.Function):
    """Save only x and beta for the backward pass, an eighth of what the separate operations save."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, beta)
        return _forward(x, beta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, beta = ctx.saved_tensors
        return _backward(x, beta, grad)


class SnakeLite(TypedModule):
    """SnakeLite `x + P8(wrap(beta x)) / beta` with a learned beta per channel, stored as its logarithm, initially 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, length)` to the same shape and dtype, computed in at least float32."""
        beta = upcast(self.log_beta).exp() + 1e-9
        if torch.is_grad_enabled() and (x.requires_grad or beta.requires_grad):
            y: Any = _SnakeLiteFunction.apply(x, beta)
            return y
        return _forward(x, beta)


class Snake(TypedModule):
    """Snake `x + sin^2(beta x) / beta` with a learned beta per channel, initially 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, length)` to the same shape and dtype, computed in at least float32."""
        wide, beta = upcast(x), upcast(self.log_beta).exp() + 1e-9
        return (wide + (wide * beta).sin().square() / beta).to(x.dtype)


class SnakeBeta(TypedModule):
    """SnakeBeta `x + sin^2(alpha x) / beta` with a learned frequency and amplitude per channel, initially 1.

    Source: BigVGAN, arXiv 2206.04658, section 3.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels, 1))
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, channels, length)` to the same shape and dtype, computed in at least float32."""
        wide, alpha = upcast(x), upcast(self.log_alpha).exp()
        return (wide + (wide * alpha).sin().square() / (upcast(self.log_beta).exp() + 1e-9)).to(x.dtype)


class ELU(nn.ELU, TypedModule):
    """Exponential linear unit with the constructor of the other activations; `channels` is ignored."""

    def __init__(self, channels: int) -> None:
        super().__init__()


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "snake_lite": SnakeLite,
    "snake": Snake,
    "snake_beta": SnakeBeta,
    "elu": ELU,
}
"""Constructors of activations by the name that Configs use, called with the number of channels."""
