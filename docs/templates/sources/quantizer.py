"""A quantizer that rounds each channel to evenly spaced levels."""

from typing import Annotated

import torch
from partita_core import BottleneckOutput, Quantizer, codes_within, config_of, register, upcast
from partita_core.ranges import Range
from torch import Tensor


@register("quantizer/newcomer", example={"levels": 4})
class Newcomer(Quantizer):
    """Round each channel, clipped to [-1, 1], to the nearest of evenly spaced levels: one code per channel.

    Args:
        dim: width of the latents.
        levels: number of levels per channel.
    """

    reference: Tensor

    def __init__(self, dim: int, *, levels: Annotated[int, Range(2, 1 << 20)] = 8) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.levels = levels
        self.codebook_sizes = (levels,) * dim
        # Follows the dtype of the module, which the values of codes have.
        self.register_buffer("reference", torch.empty(0), persistent=False)

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Round to the levels, with a straight-through gradient.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: unused; nothing is random.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values and codes, both `(batch, dim, tokens)`.
        """
        codes = self.encode_codes(hidden)
        values = self.codes_to_values(codes)
        if self.training:
            values = values + (hidden - hidden.detach())
        return BottleneckOutput(values, codes_within(codes, lengths), {}, {})

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes `(batch, dim, tokens)`; those of channels from `num_quantizers` on are -1."""
        codes = ((upcast(hidden).clamp(-1, 1) + 1) * ((self.levels - 1) / 2)).round().long()
        if num_quantizers is not None:
            codes = torch.cat([codes[:, :num_quantizers], torch.full_like(codes[:, num_quantizers:], -1)], dim=1)
        return codes

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes; zero for -1."""
        codes = self.check_codes(codes)
        values = codes.to(upcast(self.reference)) * (2 / (self.levels - 1)) - 1
        return torch.where(codes < 0, 0, values)


NewcomerConfig = config_of(Newcomer)
