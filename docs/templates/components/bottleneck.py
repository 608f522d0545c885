"""Newcomer: a bottleneck that scales each channel by a learned gain."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Bottleneck, BottleneckOutput, Config, register, upcast
from partita_core.ranges import Positive
from torch import Tensor, nn


@register("bottleneck/newcomer")
@dataclass(frozen=True)
class NewcomerConfig(Config):
    """A learned gain for each channel.

    Attributes:
        initial_gain: what every channel is multiplied by before training.
    """

    initial_gain: Positive = 1.0

    def build(self, *, dim: int) -> "Newcomer":
        """The bottleneck for latents of width `dim`."""
        return Newcomer(dim, initial_gain=self.initial_gain)

    @classmethod
    def example(cls) -> Self:
        """One whose latents differ from the hidden frames."""
        return cls(initial_gain=0.5)


class Newcomer(Bottleneck):
    """Latents `gain * hidden`."""

    def __init__(self, dim: int, *, initial_gain: float) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.gain = nn.Parameter(torch.full((dim,), initial_gain))

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Map `(batch, dim, tokens)` to as much; nothing in it is random, and `lengths` would matter to losses only."""
        return BottleneckOutput(upcast(hidden) * self.gain[:, None], None, {}, {})
