"""Newcomer: the mean squared difference of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from partita_core import AudioSpec, Config, Loss, length_mask, register, upcast
from partita_core.ranges import Positive
from torch import Tensor

from .spectral import check_pair


@register("loss/newcomer")
@dataclass(frozen=True)
class NewcomerConfig(Config):
    """Mean squared error.

    Attributes:
        scale: what samples are multiplied by before they are squared.
    """

    scale: Positive = 1.0

    def build(self, *, audio_spec: AudioSpec) -> "Newcomer":
        """The loss; it is the same for every `audio_spec`."""
        return Newcomer(scale=self.scale)

    @classmethod
    def example(cls) -> Self:
        """One that scales."""
        return cls(scale=4.0)


class Newcomer(Loss):
    """The mean over channels and samples of `(scale * (prediction - target))^2`."""

    def __init__(self, *, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The distance of `(batch, channels, samples)` to as much, `(batch,)`; samples from `lengths` on do not count.

        Raises:
            PartitaError: the shapes differ.
        """
        prediction, target, lengths = check_pair(prediction, target, lengths)
        squares = (self.scale * (upcast(prediction) - upcast(target))).square().mean(1)
        if lengths is None:
            return squares.mean(1)
        lengths = lengths.to(squares.device)
        counted = length_mask(lengths, squares.shape[1])
        return torch.where(counted, squares, 0).sum(1) / lengths.clamp_min(1)
