"""Periodic activations: Snake, its two-parameter form, and SnakeLite, which needs no sine.

Snake is `x + sin^2(a x) / a` (Ziyin et al. 2020, "Neural networks fail to learn periodic functions"). SnakeLite
(GenAE, arXiv 2602.15749, section 2) wraps the argument to [-pi/2, pi/2], where the Taylor polynomial of sin^2 of
degree 8 is within 0.0121 of it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from partita_core import upcast
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# sin^2(a) = u (1 + u (C2 + u (C3 + u C4))) with u = a^2, up to a^8.
_C2, _C3, _C4 = -1 / 3, 2 / 45, -1 / 315


def _wrap(x: Tensor, beta: Tensor) -> Tensor:
    """`beta x` less the nearest multiple of pi."""
    a = x * beta
    return a.sub_(torch.round(a / math.pi).mul_(math.pi))


def _snake_lite(x: Tensor, beta: Tensor) -> Tensor:
    u = _wrap(x, beta).square_()
    p = u * _C4
    p.add_(_C3).mul_(u).add_(_C2).mul_(u).add_(1).mul_(u)
    return p.div_(beta).add_(x)


class _SnakeLiteFunction(torch.autograd.Function):
    """Keeps x and beta only, an eighth of what the separate operations keep, and works in place on what it makes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, beta)
        return _snake_lite(x, beta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # The wrap is a step, so its derivative counts as zero: dP/da = a (2 + u (4 C2 + u (6 C3 + u 8 C4))).
        x, beta = ctx.saved_tensors
        a = _wrap(x, beta)
        u = a.square()
        slope = u * (8 * _C4)
        slope.add_(6 * _C3).mul_(u).add_(4 * _C2).mul_(u).add_(2).mul_(a)
        p = u * _C4
        p.add_(_C3).mul_(u).add_(_C2).mul_(u).add_(1).mul_(u)
        dims = [0, *range(2, x.dim())]
        # d/dbeta = slope x / beta - P / beta^2, summed over all but the channels.
        by_beta = (x * slope).sub_(p.div_(beta)).mul_(grad).sum(dims).reshape(beta.shape) / beta
        return slope.add_(1).mul_(grad), by_beta


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
            y = _snake_lite(wide, beta)
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
