"""Periodic activations: Snake, its two-parameter form, and SnakeLite, which needs no sine.

Snake is `x + sin^2(a x) / a` (Ziyin et al. 2020, "Neural networks fail to learn periodic functions"). SnakeLite, by the
formula of an open reimplementation of GenAE (arXiv 2602.15749), wraps the argument to [-pi/2, pi/2], where the Taylor
polynomial of sin^2 of degree 8 is within 0.0121 of it. It is one kernel each way where there is one: on a GPU in
Triton, on a CPU in C++ for large tensors in float32 (`native`). Other large tensors on a CPU are worked out piece by
piece.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from partita_core import upcast
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# sin^2(pi f) = u (P0 + u (P1 + u (P2 + u P3))) with u = f^2, up to f^8.
_P = (math.pi**2, -(math.pi**4) / 3, 2 * math.pi**6 / 45, -(math.pi**8) / 315)
# Its derivative by pi f, without a factor f.
_SLOPE = tuple(2 * (i + 1) * coefficient / math.pi for i, coefficient in enumerate(_P))

# Elements worked on at a time on a CPU: few enough that a piece stays in the cache from the first to the last of the
# passes over it, many enough that calling them costs nothing.
_PIECE = 2**18

# Memory that the steps of a formula may write to; None is new memory, which is what compilers and vmap want.
_Spare = Sequence[Tensor | None]


def _wrap(x: Tensor, beta: Tensor, spare: _Spare) -> Tensor:
    """`beta x / pi` less the nearest integer."""
    turns = torch.mul(x, beta * (1 / math.pi), out=spare[0])
    return turns.sub_(torch.round(turns, out=spare[1]))


def _horner(u: Tensor, coefficients: Sequence[float], out: Tensor | None) -> Tensor:
    """The polynomial with these coefficients, the constant first, at one pass over memory a degree."""
    *rest, before, last = coefficients
    p = torch.add(u.new_full((1,), before), u, alpha=last, out=out)
    for coefficient in reversed(rest):
        p = torch.addcmul(u.new_full((1,), coefficient), p, u, out=out)
    return p


def _snake_lite(x: Tensor, beta: Tensor, out: Tensor | None = None, spare: _Spare = (None, None)) -> Tensor:
    u = _wrap(x, beta, spare).square_()
    return torch.addcmul(x, _horner(u, _P, spare[1]).mul_(u), beta.reciprocal(), out=out)


def _snake_lite_gradients(
    x: Tensor, beta: Tensor, grad: Tensor, out: Tensor | None = None, spare: _Spare = (None, None, None)
) -> tuple[Tensor, Tensor]:
    """By x, and by beta summed over time, `(..., 1)`. The wrap is a step, so its derivative counts as zero."""
    f = _wrap(x, beta, spare)
    u = torch.mul(f, f, out=spare[1])
    change = _horner(u, _SLOPE, spare[2]).mul_(f).mul_(grad)
    p = _horner(u, _P, spare[0]).mul_(u).mul_(grad).sum(-1, keepdim=True)
    by_beta = (torch.mul(x, change, out=spare[1]).sum(-1, keepdim=True) - p / beta) / beta
    return torch.add(change, grad, out=out), by_beta


def _pieces(x: Tensor, beta: Tensor, spares: int) -> Iterator[tuple[tuple[slice, slice], Tensor, _Spare]]:
    """Parts of `(batch * channels, length)` to work on at a time, the betas of their rows, and as much spare memory."""
    length = x.shape[-1]
    rows, columns = max(1, _PIECE // length), min(length, _PIECE)
    betas = beta.expand(x.shape[1], 1).repeat(x.shape[0], 1)
    spare = betas.new_empty(spares, rows, columns, dtype=torch.promote_types(x.dtype, beta.dtype))
    for i in range(0, len(betas), rows):
        for j in range(0, length, columns):
            piece = slice(i, min(i + rows, len(betas))), slice(j, min(j + columns, length))
            yield piece, betas[piece[0]], spare[:, : piece[0].stop - i, : piece[1].stop - j].unbind()


def _is_plain(x: Tensor) -> bool:
    """Whether x has memory to work on: compilers fuse by themselves, and what they or vmap pass only has a shape."""
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
    return type(x) is Tensor and not watched and x.dim() == 3


def _in_pieces(x: Tensor) -> bool:
    """Whether to work piece by piece, where there is no kernel."""
    return x.device.type == "cpu" and _is_plain(x) and x.numel() > _PIECE


def _cpu_kernels() -> ModuleType | None:
    """The kernels in C++, where they can run; asked for late, since the first to ask builds them."""
    from .native import _snake_lite_cpu, kernels

    return _snake_lite_cpu if kernels() is not None else None


@cache
def _gpu_kernels(device: torch.device) -> ModuleType | None:
    """The Triton kernels, where they can run; torch brings Triton along where it brings CUDA."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from .native import _snake_lite_triton
    except ImportError:
        return None
    return _snake_lite_triton


def _fused(x: Tensor, beta: Tensor) -> ModuleType | None:
    """The kernels, if they serve these tensors."""
    if beta.dtype != torch.float32 or beta.device != x.device:
        return None
    if _in_pieces(x):
        return _cpu_kernels() if x.dtype == torch.float32 else None
    served = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return _gpu_kernels(x.device) if served and x.is_cuda and x.numel() > 0 and _is_plain(x) else None


def _forward(x: Tensor, beta: Tensor) -> Tensor:
    """In the type of x, computed in at least float32."""
    if kernels := _fused(x, beta):
        return kernels.forward(x, beta)
    if not _in_pieces(x):
        return _snake_lite(upcast(x), beta).to(x.dtype)
    x = x.contiguous()
    y = torch.empty_like(x)
    flat_x, flat_y = x.flatten(0, 1), y.flatten(0, 1)
    for piece, betas, spare in _pieces(x, beta, 2):
        _snake_lite(upcast(flat_x[piece]), betas, flat_y[piece], spare)
    return y


def _backward(x: Tensor, beta: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by x, in its type, and by beta."""
    if kernels := _fused(x, beta):
        return kernels.backward(x, beta, grad)
    if not _in_pieces(x):
        by_x, by_beta = _snake_lite_gradients(upcast(x), beta, upcast(grad))
        return by_x.to(x.dtype), by_beta.sum(0)
    x, grad = x.contiguous(), grad.contiguous()
    by_x = torch.empty_like(x)
    flat_x, flat_grad, flat_by_x = x.flatten(0, 1), grad.flatten(0, 1), by_x.flatten(0, 1)
    sums = beta.new_zeros(len(flat_x), 1)
    for piece, betas, spare in _pieces(x, beta, 3):
        _, by_beta = _snake_lite_gradients(
            upcast(flat_x[piece]), betas, upcast(flat_grad[piece]), flat_by_x[piece], spare
        )
        sums[piece[0]] += by_beta
    return by_x, sums.view(*x.shape[:2], 1).sum(0)


class _SnakeLiteFunction(torch.autograd.Function):
    """Keeps x and beta only, an eighth of what the separate operations keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, beta)
        return _forward(x, beta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, beta = ctx.saved_tensors
        return _backward(x, beta, grad)


class SnakeLite(nn.Module):
    """`x + P8(wrap(beta x)) / beta`, one learned beta a channel, kept positive by its logarithm."""

    def __init__(self, channels: int) -> None:
        """Starts every beta at 1."""
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, length)` to as much, computed in at least float32."""
        beta = upcast(self.log_beta).exp() + 1e-9
        if torch.is_grad_enabled() and (x.requires_grad or beta.requires_grad):
            y: Any = _SnakeLiteFunction.apply(x, beta)
            return y
        return _forward(x, beta)


class Snake(nn.Module):
    """`x + sin^2(beta x) / beta`, one learned beta a channel."""

    def __init__(self, channels: int) -> None:
        """Starts every beta at 1."""
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, length)` to as much, computed in at least float32."""
        wide, beta = upcast(x), upcast(self.log_beta).exp() + 1e-9
        return (wide + (wide * beta).sin().square() / beta).to(x.dtype)


class SnakeBeta(nn.Module):
    """`x + sin^2(alpha x) / beta`, frequency and amplitude learned apart (BigVGAN, arXiv 2206.04658, section 3.2)."""

    def __init__(self, channels: int) -> None:
        """Starts every alpha and beta at 1."""
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(channels, 1))
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, length)` to as much, computed in at least float32."""
        wide, alpha = upcast(x), upcast(self.log_alpha).exp()
        return (wide + (wide * alpha).sin().square() / (upcast(self.log_beta).exp() + 1e-9)).to(x.dtype)


class ELU(nn.ELU):
    """The exponential linear unit, with the face of the others: it has nothing to learn a channel."""

    def __init__(self, channels: int) -> None:
        """Takes `channels` and needs them not."""
        super().__init__()


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "snake_lite": SnakeLite,
    "snake": Snake,
    "snake_beta": SnakeBeta,
    "elu": ELU,
}
"""Activations by the name that Configs use; each is called with the number of channels."""
