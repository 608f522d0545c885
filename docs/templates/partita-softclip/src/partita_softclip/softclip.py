"""Latents bounded by x / sqrt(1 + x^2), which saturates more slowly than tanh."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Bottleneck, BottleneckOutput, Config, register, tokens_within, upcast
from partita_core.ranges import Positive
from torch import Tensor, nn


@register("bottleneck/softclip")
@dataclass(frozen=True)
class SoftClipConfig(Config):
    """Soft clipping.

    Attributes:
        initial_gain: what the hidden frames are multiplied by before training, in every channel.
    """

    initial_gain: Positive = 1.0

    def build(self, *, dim: int) -> "SoftClip":
        """The bottleneck for latents of width `dim`."""
        return SoftClip(dim, initial_gain=self.initial_gain)

    @classmethod
    def example(cls) -> Self:
        """One that starts in the bend of the curve."""
        return cls(initial_gain=2.0)


class SoftClip(Bottleneck):
    """Latents g x / sqrt(1 + (g x)^2), with a learned gain g for each channel.

    The slope falls with the cube of the input, not exponentially as tanh's does, so that hidden frames far from zero
    still receive gradients; the gain lets each channel choose how much of the range it uses.
    """

    bounded = True

    def __init__(self, dim: int, *, initial_gain: float) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.gain = nn.Parameter(torch.full((dim,), initial_gain))

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Map `(batch, dim, tokens)` to as much, strictly inside (-1, 1); the metric is of the tokens in `lengths`."""
        scaled = upcast(hidden) * self.gain[:, None]
        # hypot, because the square of a large input would overflow; the limit, because the quotient rounds to 1.
        values = scaled / torch.hypot(scaled, torch.ones_like(scaled))
        limit = 1 - torch.finfo(values.dtype).eps
        used = {"values_rms": tokens_within(values.detach(), lengths).square().mean().sqrt()}
        return BottleneckOutput(values.clamp(-limit, limit), None, {}, used)
