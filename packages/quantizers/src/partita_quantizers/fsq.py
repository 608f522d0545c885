"""Finite scalar quantization: scalars are rounded to a few levels, and a group of scalars is one code."""

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

MARGIN = 1e-3  # excess of the bounded range over the outermost levels, so that they are reached


@register("quantizer/fsq", example={"levels": (4, 5)})
class FSQ(Quantizer):
    """Finite scalar quantization (Mentzer et al., arXiv 2309.15505) in groups.

    A token has `dim` scalars in groups of `len(levels)` adjacent ones. A group is one of `prod(levels)` codes, with the
    first scalar as the least significant digit. A scalar of `L` levels has the values `-h/h .. (L-1-h)/h` with
    `h = L // 2`. For even `L` there is one more value below zero than above, and the tanh is offset by half a step so
    that all values are reached. A dropped group (-1) is zero. No codebook is stored; codes are integer arithmetic.

    Args:
        dim: width of the latents, a multiple of `len(levels)`; None for `len(levels)`.
        levels: number of levels of each scalar of a group, each at least 3.
        bound: "tanh" for hidden frames of any magnitude; "clamp" for latents that are already in [-1, 1], which are
            rounded to the nearest level.
        rounding_dropout: probability that an example is not rounded in training, so that one model works with
            continuous latents and with codes (CoDiCodec uses 0.75).

    Raises:
        PartitaError: `levels` is empty, `dim` is not a multiple of `len(levels)`, or the codes of a group exceed int64.
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
            raise PartitaError("levels is empty; give the number of levels of at least one scalar")
        if math.prod(levels) > 2**63 - 1:
            raise PartitaError(
                f"levels {levels} make {math.prod(levels)} codes, more than int64 can hold, {2**63 - 1}; "
                "use fewer scalars per group"
            )
        dim = len(levels) if dim is None else dim
        if dim % len(levels):
            raise PartitaError(
                f"levels has {len(levels)} values, and the latents have {dim} channels; "
                "make dim a multiple of the number of levels"
            )
        self.dim = self.in_dim = dim
        self.bound, self.rounding_dropout = bound, rounding_dropout
        self.codebook_sizes = (math.prod(levels),) * (dim // len(levels))
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self._levels, self._basis = (Constant(torch.tensor(x, device="cpu")[:, None]) for x in (levels, basis))
        # Follows the dtype of the module, which the values of codes have.
        self.register_buffer("reference", torch.empty(0), persistent=False)

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Round to the levels, with a straight-through gradient.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: True for rounding dropout; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)` in [-1, 1]; codes `(batch, dim / len(levels), tokens)`, also of examples that
            are not rounded; the metrics `distinct_codes` (in the batch, mean over groups), `edge_fraction` (share of
            scalars at their outermost levels) and `relative_error` (of the values with respect to the bounded input).
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
        """Codes `(batch, num_quantizers, tokens)`, as in `forward`; groups from `num_quantizers` on are -1."""
        count = resolve_num_quantizers(num_quantizers, self.num_quantizers, "this FSQ")
        codes = self._pack(self._digits(self._bounded(receive(self, hidden))))
        dropped = torch.arange(self.num_quantizers, device=codes.device) >= count
        return codes.masked_fill(dropped[:, None], -1)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes; a group that is -1 is zero."""
        codes = self.check_codes(codes)
        groups = codes[:, :, None]
        levels = self._levels.on(codes.device)
        digits = groups // self._basis.on(codes.device) % levels
        zero = levels // 2
        return self._values(torch.where(groups < 0, zero, digits), upcast(self.reference).dtype)

    def _bounded(self, hidden: Tensor) -> Tensor:
        """Scalars in units of a step, `(batch, groups, len(levels), tokens)`, bounded to the range of the levels."""
        scalars = hidden.unflatten(1, (self.num_quantizers, -1))
        counts = self._levels.on(hidden.device)
        levels, half = counts.to(hidden.dtype), (counts // 2).to(hidden.dtype)
        if self.bound == "clamp":
            return torch.clamp(scalars * half, -half, levels - 1 - half)
        reach = (levels - 1) * (1 + MARGIN) / 2
        offset = 0.5 * (counts % 2 == 0).to(hidden.dtype)
        return torch.tanh(scalars + torch.atanh(offset / reach)) * reach - offset

    def _digits(self, scalars: Tensor) -> Tensor:
        """Digits 0 .. L-1, int64; the clamp is for many levels, where the margin exceeds half a step."""
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
    """Distinct codes per group of `(count, groups)`, by sorting: `prod(levels)` bins of a histogram may not fit."""
    ordered = codes.sort(dim=0).values
    return (ordered.diff(dim=0) != 0).sum(dim=0) + 1
