"""Activations and group norm that train fast on a CPU, with the results of torch's.

In training, large float32 tensors go through kernels of our own (`native/pointwise.hpp`), which read and write each
tensor once. All others take torch's operations.
"""

from torch import Tensor
from torch.nn import functional as F

from .native import _pointwise_cpu
from .native.serving import serves_training


def elu(x: Tensor) -> Tensor:
    """Exponential linear unit."""
    return _pointwise_cpu.elu(x) if serves_training(x) else F.elu(x)


def silu(x: Tensor) -> Tensor:
    """Sigmoid linear unit."""
    return _pointwise_cpu.silu(x) if serves_training(x) else F.silu(x)


def group_norm(x: Tensor, weight: Tensor, scale: Tensor | None, *, groups: int, eps: float) -> Tensor:
    """Group norm of a map without a shift.

    Args:
        x: map `(batch, channels, rows, columns)`.
        weight: `(channels,)` gains.
        scale: `(batch, channels)` further gains, or None.
        groups: number of groups of channels that are normalized together.
        eps: constant that is added to variances.

    Returns:
        Map of the same shape.
    """
    if serves_training(x, weight, scale) and _pointwise_cpu.fits_group_norm(x):
        gains = weight.expand(len(x), -1) if scale is None else weight * scale
        return _pointwise_cpu.group_norm(x, gains, groups, eps)
    y = F.group_norm(x, groups, weight, eps=eps)
    return y if scale is None else y * scale[..., None, None]
