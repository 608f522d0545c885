"""Transforms of latents for generators: normalization, and regrouping to vectors of another width."""

import torch
from torch import Tensor, nn

from .constants import Constant
from .errors import PartitaError, short_repr
from .specs import LatentSpec

# Bounded values are clamped to this distance from the bounds, where atanh is infinite.
_MARGIN = 1e-6


def unbound(values: Tensor) -> Tensor:
    """Map values in [-1, 1] to real numbers by atanh, clamped near the bounds; `tanh` is the inverse."""
    return values.clamp(-1 + _MARGIN, 1 - _MARGIN).atanh()


class LatentNormalizer(nn.Module):
    """Normalize each channel to zero mean and unit variance, bounded latents after atanh; and the inverse.

    The implementation of `Latents.normalize`. Without measured statistics both directions are the identity.
    """

    def __init__(self, spec: LatentSpec) -> None:
        """Take the statistics of `spec`."""
        super().__init__()
        measured = spec.mean is not None and spec.std is not None
        self.bounded = spec.bounded and measured
        mean, std = (spec.mean, spec.std) if measured else ([0.0], [1.0])
        self.mean, self.std = (
            Constant(torch.tensor(statistic, dtype=torch.float64, device="cpu")[:, None]) for statistic in (mean, std)
        )

    def normalize(self, values: Tensor) -> Tensor:
        """Normalize values `(batch, dim, tokens)` of the codec."""
        values = unbound(values) if self.bounded else values
        return (values - self.mean.like(values)) / self.std.like(values)

    def denormalize(self, values: Tensor) -> Tensor:
        """Map normalized values `(batch, dim, tokens)` back to those of the codec."""
        values = values * self.std.like(values) + self.mean.like(values)
        return values.tanh() if self.bounded else values


def regroup(values: Tensor, dim: int) -> Tensor:
    """Reshape latents to vectors of another width; `regroup(result, width)` is the exact inverse.

    Neighboring tokens are joined, or one token is split into neighbors: a frame of 128 tokens with 4 channels becomes
    a frame of 8 tokens with 64 channels. Use it on the `values` of normalized latents.

    Args:
        values: `(batch, width, tokens)`.
        dim: number of channels of the result.

    Returns:
        `(batch, dim, tokens * width / dim)`; each token holds the channels of the first, then of the second, and so on.

    Raises:
        PartitaError: `width * tokens` is not a multiple of `dim`.
    """
    batch, width, tokens = values.shape
    if not isinstance(dim, int) or dim < 1 or width * tokens % dim:
        given = f"{tokens} tokens of {width} channels"
        raise PartitaError(f"{given} cannot be regrouped to {short_repr(dim)} channels; use a divisor of their product")
    return values.transpose(1, 2).reshape(batch, width * tokens // dim, dim).transpose(1, 2)
