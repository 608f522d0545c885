"""Exact conversion between codes and the id sequences of language models.

There are two layouts (both in MusicGen, arXiv 2306.05284, section 2.2). *Flat*: one sequence, token by token and level
by level, of length `tokens * num_quantizers`. *Delay*: one row per level, with level q shifted by q steps, so that all
levels of a step can be predicted in parallel, given the lower levels of the same token; the length is `tokens +
num_quantizers - 1`.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal, TypeVar

import torch
from einops import rearrange
from partita_core import (
    PartitaError,
    as_integers,
    as_tensor,
    check_codes,
    length_mask,
    resolve_num_quantizers,
    short_repr,
)
from torch import Tensor
from torch.nn import functional as F

_N = TypeVar("_N", int, Tensor)


def flatten_codes(codes: Tensor) -> Tensor:
    """Flatten `(batch, num_quantizers, tokens)` to `(batch, tokens * num_quantizers)`, token by token."""
    return rearrange(codes, "batch levels tokens -> batch (tokens levels)")


def unflatten_codes(flat: Tensor, num_quantizers: int) -> Tensor:
    """Invert `flatten_codes`.

    Raises:
        PartitaError: the length is not a multiple of `num_quantizers`.
    """
    if flat.shape[-1] % num_quantizers:
        raise PartitaError(f"there are {flat.shape[-1]} flattened codes, not a multiple of {num_quantizers} levels")
    return rearrange(flat, "batch (tokens levels) -> batch levels tokens", levels=num_quantizers)


def delay_codes(codes: Tensor, fill: int) -> Tensor:
    """Shift level q by q steps, from `(batch, num_quantizers, tokens)` to `(..., tokens + num_quantizers - 1)`.

    The corners are filled with `fill`.
    """
    last = codes.shape[1] - 1
    return torch.stack([F.pad(level, (q, last - q), value=fill) for q, level in enumerate(codes.unbind(1))], dim=1)


def undelay_codes(delayed: Tensor) -> Tensor:
    """Invert `delay_codes`; the corners are ignored.

    Raises:
        PartitaError: there are fewer steps than the largest shift.
    """
    tokens = delayed.shape[-1] - delayed.shape[1] + 1
    if tokens < 0:
        levels = delayed.shape[1]
        raise PartitaError(f"there are {delayed.shape[-1]} steps, and {levels} levels have delays up to {levels - 1}")
    return torch.stack([level[:, q : q + tokens] for q, level in enumerate(delayed.unbind(1))], dim=1)


@dataclass(frozen=True)
class TokenSpace:
    """Token ids of the codes of one quantizer: three special ids, then a range of ids per level.

    An item is bos, its codes in the layout, eos, and pad up to the longest item of the batch; in the delay layout each
    special id is a step of all levels. The meaning of an id does not depend on the number of levels that are kept.
    `decode` accepts exactly the sequences that `encode` returns.

        space = TokenSpace(codebook_sizes=(1024,) * 8, num_quantizers=4)
        ids = space.encode(codes)  # (batch, 1 + 4 * tokens + 1), below space.vocab_size == 3 + 4 * 1024
        codes = space.decode(ids)  # (batch, 8, tokens); levels 4 to 7 are -1

    Attributes:
        codebook_sizes: number of codes of each level of the quantizer.
        num_quantizers: number of levels that are kept, from the first on; None for all.
        layout: "flat" for `(batch, length)`, "delay" for `(batch, num_quantizers, length)`.
    """

    codebook_sizes: tuple[int, ...]
    num_quantizers: int | None = None
    layout: Literal["flat", "delay"] = "flat"

    pad_id: ClassVar[int] = 0
    bos_id: ClassVar[int] = 1
    eos_id: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Validate the fields."""
        sizes = self.codebook_sizes
        if not isinstance(sizes, (list, tuple)) or not all(isinstance(size, int) for size in sizes):
            raise PartitaError(f"codebook_sizes is {short_repr(sizes)}; one integer per level is expected")
        object.__setattr__(self, "codebook_sizes", tuple(sizes))
        levels = len(sizes)
        if not levels:
            raise PartitaError("codebook_sizes is empty; continuous latents have no token ids")
        if min(self.codebook_sizes) < 1:
            raise PartitaError(f"codebook_sizes is {self.codebook_sizes}; every level must have at least 1 code")
        resolve_num_quantizers(self.num_quantizers, levels, "this quantizer")
        if not isinstance(self.layout, str) or self.layout not in ("flat", "delay"):
            raise PartitaError(f"layout is {self.layout!r}; it must be 'flat' or 'delay'")
        if self.vocab_size > 2**63 - 1:
            raise PartitaError(f"the vocabulary has {self.vocab_size} ids, which exceeds int64; use smaller codebooks")

    @property
    def kept(self) -> tuple[int, ...]:
        """Codebook sizes of the levels that are kept."""
        return self.codebook_sizes[: self.num_quantizers]

    @property
    def vocab_size(self) -> int:
        """Number of ids, including the special ones."""
        return self._starts[-1]

    @property
    def _starts(self) -> tuple[int, ...]:
        """First id of each level, and the end of the last level."""
        return tuple(accumulate(self.kept, initial=max(self.pad_id, self.bos_id, self.eos_id) + 1))

    def level_ids(self, level: int) -> range:
        """Ids of the codes of a level, in the order of the codes."""
        return range(self._starts[level], self._starts[level] + self.kept[level])

    def length(self, tokens: int) -> int:
        """Number of ids (steps in the delay layout) of an item of `tokens` tokens, including bos and eos."""
        return self._body(tokens) + 2

    def encode(self, codes: Tensor) -> Tensor:
        """Encode codes as ids; levels that are not kept are dropped.

        Args:
            codes: `(batch, num_quantizers, tokens)`, with -1 after the end of an item. Levels that are not kept are
                not read.

        Returns:
            int64 ids `(batch, length)`, or `(batch, kept levels, length)` in the delay layout.

        Raises:
            PartitaError: the number of levels differs from the quantizer's, a code is out of range, or a kept level
                is missing.
        """
        codes = as_integers(codes, "codes")
        if codes.dim() != 3 or codes.shape[1] != len(self.codebook_sizes):
            shape = f"(batch, {len(self.codebook_sizes)}, tokens)"
            raise PartitaError(f"codes are {tuple(codes.shape)}; {shape} is expected")
        codes = check_codes(codes[:, : len(self.kept)], self.kept)
        counts = (codes[:, 0] >= 0).sum(-1)
        inside = length_mask(counts, codes.shape[-1])
        if len(wrong := ((codes >= 0) != inside[:, None]).nonzero()):
            item, level, token = wrong[0].tolist()
            reason = f"level {level} is missing (-1); drop it for all items with num_quantizers={level}"
            reason = reason if level else "-1 is followed by codes; it may only pad the end of an item"
            raise PartitaError(f"item {item}, token {token}: {reason}")
        return self._arrange(codes[..., : _longest(counts)], counts)

    def decode(self, ids: Tensor) -> Tensor:
        """Decode ids to codes: the exact inverse of `encode`.

        Args:
            ids: integers `(batch, length)`, or `(batch, kept levels, length)` in the delay layout.

        Returns:
            int64 codes `(batch, num_quantizers, tokens)` with all levels of the quantizer, as long as the longest item;
            -1 after the end of an item and in levels that are not kept.

        Raises:
            PartitaError: `encode` cannot return these ids; the first invalid one is named.
        """
        ids = self._checked(ids)
        counts = self._counts(ids)
        longest = _longest(counts)
        # Valid ids lie between those of the lowest and of the highest codes of these lengths.
        shape = (len(ids), len(self.kept), longest)
        highest = ids.new_tensor(self.kept)[:, None].expand(shape) - 1
        low, high = (
            F.pad(bound, (0, ids.shape[-1] - bound.shape[-1]), value=self.pad_id)
            for bound in (self._arrange(ids.new_zeros(shape), counts), self._arrange(highest, counts))
        )
        if len(wrong := ((ids < low) | (ids > high)).nonzero()):
            index = tuple(wrong[0].tolist())
            expected = self._describe(int(low[index]))
            raise PartitaError(f"item {index[0]}, position {index[-1]}: id {int(ids[index])}; expected {expected}")
        body = ids[..., 1 : 1 + self._body(longest)]
        codes = unflatten_codes(body, len(self.kept)) if self.layout == "flat" else undelay_codes(body)
        codes = torch.where(length_mask(counts, longest)[:, None], codes - self._offsets(ids), -1)
        return F.pad(codes, (0, 0, 0, len(self.codebook_sizes) - len(self.kept)), value=-1)

    def _arrange(self, codes: Tensor, counts: Tensor) -> Tensor:
        """Ids of items of `counts` tokens; codes `(batch, kept levels, max(counts))`."""
        ids = torch.where(length_mask(counts, codes.shape[-1])[:, None], codes + self._offsets(codes), self.pad_id)
        body = flatten_codes(ids) if self.layout == "flat" else delay_codes(ids, self.pad_id)
        ids = F.pad(body, (1, 1), value=self.pad_id)
        ids[..., 0] = self.bos_id
        ends = self._body(counts) + 1
        ends = ends[:, None] if self.layout == "flat" else ends[:, None, None].expand(-1, ids.shape[1], 1)
        return ids.scatter(-1, ends, self.eos_id)

    def _checked(self, ids: Tensor) -> Tensor:
        """Return `ids` as int64, each within the vocabulary."""
        expected = "(batch, length)" if self.layout == "flat" else f"(batch, {len(self.kept)}, length)"
        ids = as_tensor(ids, "ids")
        fits = ids.dim() == 2 if self.layout == "flat" else ids.dim() == 3 and ids.shape[1] == len(self.kept)
        if not fits or ids.is_floating_point():
            raise PartitaError(
                f"ids are {tuple(ids.shape)} {ids.dtype}; integers {expected} are expected in the {self.layout} layout"
            )
        ids = ids.long()
        if len(wrong := ids[(ids < 0) | (ids >= self.vocab_size)]):
            raise PartitaError(f"id {int(wrong[0])} is out of range; ids must be in 0..{self.vocab_size - 1}")
        return ids

    def _counts(self, ids: Tensor) -> Tensor:
        """Number of tokens per item, from the position of its eos."""
        rows = ids if self.layout == "flat" else ids[:, 0]
        is_end = rows == self.eos_id
        for item, has_end in enumerate(is_end.any(-1).tolist()):
            if not has_end:
                raise PartitaError(f"item {item} has no eos (id {self.eos_id}); it is truncated")
        if not len(rows):
            return rows.new_zeros(0)
        body = is_end.int().argmax(-1) - 1  # the first eos; one instead of bos is found with the other ids
        levels = len(self.kept)
        counts = body // levels if self.layout == "flat" else body - (levels - 1)
        for item, (length, count) in enumerate(zip(body.tolist(), counts.tolist())):
            if length >= 0 and (count < 0 or self._body(count) != length):
                unit = f"{levels} ids per token" if self.layout == "flat" else f"at least {levels - 1} steps of delay"
                raise PartitaError(f"item {item} ends within a token: {length} ids before eos; there must be {unit}")
        return counts.clamp(min=0)

    def _body(self, tokens: _N) -> _N:
        """Length of `tokens` tokens in the layout, without bos and eos."""
        return tokens * len(self.kept) if self.layout == "flat" else tokens + len(self.kept) - 1

    def _offsets(self, like: Tensor) -> Tensor:
        return like.new_tensor(self._starts[:-1])[:, None]

    def _describe(self, lowest: int) -> str:
        """Description of the valid ids at a position, of which `lowest` is the first."""
        special = {self.pad_id: "pad", self.bos_id: "bos", self.eos_id: "eos"}
        if lowest in special:
            return f"{special[lowest]} (id {lowest})"
        level = self._starts.index(lowest)
        ids = self.level_ids(level)
        return f"a code of level {level} ({ids[0]}..{ids[-1]})"


def _longest(counts: Tensor) -> int:
    return int(counts.max()) if len(counts) else 0
