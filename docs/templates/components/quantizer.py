"""Newcomer: a quantizer that rounds each channel to steps of [-1, 1]."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import BottleneckOutput, Config, PartitaError, Quantizer, codes_within, register, upcast
from partita_core.ranges import Width
from torch import Tensor


@register("quantizer/newcomer")
@dataclass(frozen=True)
class NewcomerConfig(Config):
    """One code for each channel.

    Attributes:
        levels: values that a channel can take, 2 or more.
    """

    levels: Width = 8

    def build(self, *, dim: int) -> "Newcomer":
        """The quantizer for latents of width `dim`."""
        return Newcomer(dim, levels=self.levels)

    @classmethod
    def example(cls) -> Self:
        """A coarse one."""
        return cls(levels=4)


class Newcomer(Quantizer):
    """Rounds each channel, clipped to [-1, 1], to the nearest of evenly spaced levels; gradients pass straight through.

    Raises:
        PartitaError: there are fewer than two levels.
    """

    reference: Tensor

    def __init__(self, dim: int, *, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise PartitaError(f"levels is {levels}; at least 2 are needed")
        self.dim = self.in_dim = dim
        self.levels = levels
        self.codebook_sizes = (levels,) * dim
        # Holds nothing but the dtype of the module, which the values of codes have.
        self.register_buffer("reference", torch.empty(0), persistent=False)

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Map `(batch, dim, tokens)` to the values of its codes, which are -1 behind `lengths`; nothing is random."""
        codes = self.encode_codes(hidden)
        values = self.codes_to_values(codes)
        if self.training:
            values = hidden + (values - hidden).detach()
        return BottleneckOutput(values, codes_within(codes, lengths), {}, {})

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """The code of each channel; from channel `num_quantizers` on, -1."""
        codes = ((upcast(hidden).clamp(-1, 1) + 1) * ((self.levels - 1) / 2)).round().long()
        if num_quantizers is not None:
            codes = torch.cat([codes[:, :num_quantizers], torch.full_like(codes[:, num_quantizers:], -1)], dim=1)
        return codes

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """The level that each code stands for, and zero for -1."""
        codes = self.check_codes(codes)
        values = codes.to(upcast(self.reference)) * (2 / (self.levels - 1)) - 1
        return torch.where(codes < 0, 0, values)
