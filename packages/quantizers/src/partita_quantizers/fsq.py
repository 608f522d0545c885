"""Finite scalar quantization: every scalar is rounded to a few levels, and a group of scalars is one code."""

import math
from typing import Annotated, Literal

import torch
from partita_core import (
    BottleneckOutput,
    Constant,
    PartitaError,
    Quantizer,
    codes_within,
    config_of,
    register,
    resolve_num_quantizers,
    tokens_within,
    upcast,
)
from partita_core.ranges import Proportion, Range
from torch import Tensor

from ._common import receive, relative_error, straight_through

_MARGIN = 1e-3  # by how much the bounded range exceeds the outermost levels, so that they are reached


@register("quantizer/fsq", example={"levels": (4, 5)})
class FSQ(Quantizer):
    """Finite scalar quantization (Mentzer et al., arXiv 2309.15505) in groups.

    `dim` scalars a token, in groups of `len(levels)` neighbors; a group is one code of `prod(levels)`, with its first
    scalar the least significant digit. A scalar of `L` levels takes the values `-h/h .. (L-1-h)/h`, `h = L // 2`; with
    an even `L` that is one more below zero than above, and the tanh is offset by half a step so that all of them are
    reached. A dropped group (-1) is the center, zero. No codebook is stored; codes are integer arithmetic.

    Args:
        dim: width of the latents, a multiple of the number of levels; None for that number.
        levels: number of levels of each scalar of a group, each at least 3.
        bound: "tanh" for hidden frames of any size; "clamp" for latents that are bounded already, each of which
            is then rounded to the nearest level.
        rounding_dropout: probability that an example is left unrounded in training, so that the same weights
            serve continuous latents and codes (CoDiCodec uses 0.75).

    Raises:
        PartitaError: `dim` is not a multiple of the number of levels, or a group has too many codes.
    """

    reference: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        levels: tuple[Annotated[int, Range(3, (1 << 31) - 1)], ...] = (11, 11, 11, 11),
        bound: Literal["tanh", "clamp"] = "tanh",
        rounding_dropout: Proportion = 0.0,
    ) -> None:
        super().__init__()
        if not levels:
            raise PartitaError("levels is empty; a group needs at least one scalar")
        if math.prod(levels) > 2**63 - 1:
            raise PartitaError(
                f"levels {levels} make {math.prod(levels)} codes, int64 holds {2**63 - 1}; use fewer scalars per group"
            )
        dim = len(levels) if dim is None else dim
        if dim % len(levels):
            raise PartitaError(
                f"FSQ packs groups of {len(levels)} scalars, and the latents have {dim} channels; "
                f"make one a multiple of the other"
            )
        self.dim = self.in_dim = dim
        self.bound, self.rounding_dropout = bound, rounding_dropout
        self.codebook_sizes = (math.prod(levels),) * (dim // len(levels))
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self._levels, self._basis = (Constant(torch.tensor(x, device="cpu")[:, None]) for x in (levels, basis))
        # Holds nothing but the dtype of the module, which values of codes alone must have.
        self.register_buffer("reference", torch.empty(0), persistent=False)

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Rounds, with the gradient passing straight through.

        Args:
            hidden: `(batch, dim, tokens)`.
            stochastic: whether rounding dropout acts; None means `self.training`.
            lengths: `(batch,)` tokens of each item that count; None for all.

        Returns:
            values `(batch, dim, tokens)`, in [-1, 1]; codes `(batch, dim / len(levels), tokens)`, which an example
            left unrounded has, too; metrics `distinct_codes` (in the batch, mean over groups), `edge_fraction` (of
            scalars at their outermost levels) and `relative_error` (of the values against the bounded input).
        """
        scalars = self._bounded(receive(self, hidden))
        digits = self._digits(scalars)
        levels = self._levels.on(hidden.device)
        half = (levels // 2).to(scalars.dtype)
        continuous = (scalars / half).flatten(1, 2)
        rounded = self._values(digits, scalars.dtype)
        values = straight_through(rounded, continuous)
        if self.rounding_dropout > 0 and self.is_stochastic(stochastic):
            skip = torch.rand(len(hidden), 1, 1, device=hidden.device) < self.rounding_dropout
            values = torch.where(skip, continuous, values)
        codes = self._pack(digits)
        edges = (digits == 0) | (digits == levels - 1)
        metrics = {
            "distinct_codes": _distinct(tokens_within(codes, lengths)).to(values.dtype).mean(),
            "edge_fraction": tokens_within(edges.flatten(1, 2), lengths).to(values.dtype).mean(),
            "relative_error": relative_error(rounded, continuous, lengths),
        }
        return BottleneckOutput(values, codes_within(codes, lengths), {}, metrics)

    def encode_codes(self, hidden: Tensor, num_quantizers: int | None = None) -> Tensor:
        """The codes `(batch, num_quantizers, tokens)` of `forward`; groups from `num_quantizers` on are -1."""
        count = resolve_num_quantizers(num_quantizers, self.num_quantizers, "this FSQ")
        codes = self._pack(self._digits(self._bounded(receive(self, hidden))))
        dropped = torch.arange(self.num_quantizers, device=codes.device) >= count
        return codes.masked_fill(dropped[:, None], -1)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """The values `(batch, dim, tokens)` of codes; a group that is -1 is zero."""
        codes = self.check_codes(codes)
        groups = codes[:, :, None]
        levels = self._levels.on(codes.device)
        digits = groups // self._basis.on(codes.device) % levels
        center = levels // 2
        return self._values(torch.where(groups < 0, center, digits), upcast(self.reference).dtype)

    def _bounded(self, hidden: Tensor) -> Tensor:
        """Scalars in units of a step, `(batch, groups, len(levels), tokens)`, in the range of their digits."""
        scalars = hidden.unflatten(1, (self.num_quantizers, -1))
        counts = self._levels.on(hidden.device)
        levels, half = counts.to(hidden.dtype), (counts // 2).to(hidden.dtype)
        if self.bound == "clamp":
            return torch.clamp(scalars * half, -half, levels - 1 - half)
        reach = (levels - 1) * (1 + _MARGIN) / 2
        offset = 0.5 * (counts % 2 == 0).to(hidden.dtype)
        return torch.tanh(scalars + torch.atanh(offset / reach)) * reach - offset

    def _digits(self, scalars: Tensor) -> Tensor:
        """Digits 0 .. L-1, int64; with many levels the margin would reach past the outermost, hence the clamp."""
        levels = self._levels.on(scalars.device)
        digits = scalars.detach().round().long() + levels // 2
        return torch.minimum(digits.clamp(min=0), levels - 1)

    def _pack(self, digits: Tensor) -> Tensor:
        return (digits * self._basis.on(digits.device)).sum(dim=2)

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        half = self._levels.on(digits.device) // 2
        return ((digits - half).to(dtype) / half.to(dtype)).flatten(1, 2)


FSQConfig = config_of(FSQ)


def _distinct(codes: Tensor) -> Tensor:
    """Distinct codes per group of `(count, groups)`, by sorting: a histogram of `prod(levels)` bins might not fit."""
    ordered = codes.sort(dim=0).values
    return (ordered.diff(dim=0) != 0).sum(dim=0) + 1
