"""The scale that generators and representation encoders take latents at."""

import torch
from torch import Tensor, nn

from .constants import Constant
from .specs import LatentSpec

# Bounded values are kept this far from the ends, where atanh is infinite.
_MARGIN = 1e-6


class LatentNormalizer(nn.Module):
    """Each channel to zero mean and unit variance, bounded latents through atanh first; and back.

    What `Latents.normalize` is to records; latents whose statistics nobody has measured stay as they are here.
    """

    def __init__(self, spec: LatentSpec) -> None:
        """Take the statistics of the spec."""
        super().__init__()
        known = spec.mean is not None and spec.std is not None
        self.bounded = spec.bounded and known
        mean, std = (spec.mean, spec.std) if known else ([0.0], [1.0])
        self.mean, self.std = (
            Constant(torch.tensor(statistic, dtype=torch.float64, device="cpu")[:, None]) for statistic in (mean, std)
        )

    def normalize(self, values: Tensor) -> Tensor:
        """`(batch, dim, tokens)` as the codec makes them to as much at that scale."""
        if self.bounded:
            values = values.clamp(-1 + _MARGIN, 1 - _MARGIN).atanh()
        return (values - self.mean.like(values)) / self.std.like(values)

    def denormalize(self, values: Tensor) -> Tensor:
        """The way back."""
        values = values * self.std.like(values) + self.mean.like(values)
        return values.tanh() if self.bounded else values
