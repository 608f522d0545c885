"""Periodic activations: Snake, its two-parameter form, and SnakeLite, which needs no sine.

Snake is `x + sin^2(a x) / a` (Ziyin et al. 2020, "Neural networks fail to learn periodic functions"). SnakeLite
(GenAE, arXiv 2602.15749, section 2) wraps the argument to [-pi/2, pi/2], where the Taylor polynomial of sin^2 of
degree 8 is within 0.0121 of it.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from partita_core import upcast
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# sin^2(a) = u (1 + u (C2 + u (C3 + u C4))) with u = a^2, up to a^8.
_C2, _C3, _C4 = -1 / 3, 2 / 45, -1 / 315

# Elements worked on at a time on a CPU: few enough that a piece stays in the cache from the first to the last of the
# passes over it, many enough that calling them costs nothing.
_PIECE = 2**19


def _wrap(x: Tensor, beta: Tensor) -> Tensor:
    """`beta x` less the nearest multiple of pi."""
    a = x * beta
    return a.sub_((a * (1 / math.pi)).round_(), alpha=math.pi)


def _snake_lite(x: Tensor, beta: Tensor) -> Tensor:
    u = _wrap(x, beta).square_()
    p = u * _C4
    return x.addcdiv(p.add_(_C3).mul_(u).add_(_C2).mul_(u).add_(1).mul_(u), beta)


def _snake_lite_gradients(x: Tensor, beta: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """By x, and by beta before its sum over batch and time."""
    # The wrap is a step, so its derivative counts as zero: dP/da = a (2 + u (4 C2 + u (6 C3 + u 8 C4))).
    a = _wrap(x, beta)
    u = a.square()
    slope = u * (8 * _C4)
    slope.add_(6 * _C3).mul_(u).add_(4 * _C2).mul_(u).add_(2).mul_(a)
    p = u * _C4
    p.add_(_C3).mul_(u).add_(_C2).mul_(u).add_(1).mul_(u)
    # d/dbeta = slope x / beta - P / beta^2.
    by_beta = (x * slope).sub_(p.div_(beta)).mul_(grad).div_(beta)
    return slope.add_(1).mul_(grad), by_beta


def _pieces(x: Tensor, beta: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows and columns of `(batch * channels, length)` to work on at a time, and the betas of the rows."""
    length = x.shape[-1]
    rows, columns = max(1, _PIECE // length), min(length, _PIECE)
    betas = beta.expand(x.shape[1], 1).repeat(x.shape[0], 1)
    for i in range(0, len(betas), rows):
        for j in range(0, length, columns):
            yield slice(i, i + rows), slice(j, j + columns), betas[i : i + rows]


def _in_pieces(x: Tensor) -> bool:
    """Whether to work piece by piece.

    Compilers fuse the passes by themselves, a GPU wants all at once, and fake tensors only have a shape.
    """
    plain = type(x) is Tensor and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return plain and x.dim() == 3 and x.numel() > _PIECE


def _forward(x: Tensor, beta: Tensor) -> Tensor:
    if not _in_pieces(x):
        return _snake_lite(x, beta)
    x = x.contiguous()
    y = torch.empty_like(x)
    flat_x, flat_y = x.flatten(0, 1), y.flatten(0, 1)
    for rows, columns, betas in _pieces(x, beta):
        flat_y[rows, columns] = _snake_lite(flat_x[rows, columns], betas)
    return y


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
        if not _in_pieces(x):
            by_x, by_beta = _snake_lite_gradients(x, beta, grad)
            return by_x, by_beta.sum([0, *range(2, x.dim())]).reshape(beta.shape)
        x, grad = x.contiguous(), grad.contiguous()
        by_x = torch.empty_like(x)
        flat_x, flat_grad, flat_by_x = x.flatten(0, 1), grad.flatten(0, 1), by_x.flatten(0, 1)
        sums = x.new_zeros(len(flat_x))
        for rows, columns, betas in _pieces(x, beta):
            flat_by_x[rows, columns], by_beta = _snake_lite_gradients(
                flat_x[rows, columns], betas, flat_grad[rows, columns]
            )
            sums[rows] += by_beta.sum(-1)
        return by_x, sums.view(x.shape[:2]).sum(0).reshape(beta.shape)


class SnakeLite(nn.Module):
    """`x + P8(wrap(beta x)) / beta`, one learned beta a channel, kept positive by its logarithm."""

    def __init__(self, channels: int) -> None:
        """Starts every beta at 1."""
        super().__init__()
        self.log_beta = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(batch, channels, length)` to as much, computed in at least float32."""
        wide = upcast(x)
        beta = upcast(self.log_beta).exp() + 1e-9
        if torch.is_grad_enabled() and (wide.requires_grad or beta.requires_grad):
            y: Any = _SnakeLiteFunction.apply(wide, beta)
        else:
            y = _forward(wide, beta)
        return y.to(x.dtype)


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
