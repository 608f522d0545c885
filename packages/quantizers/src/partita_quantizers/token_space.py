"""Codes as the id sequences that language models take, and back, exactly.

Two layouts (both in MusicGen, arXiv 2306.05284, section 2.2). *Flat*: token after token, each token level by level, one
sequence of `tokens * num_quantizers` ids. *Delay*: a row for each level, level q shifted by q steps, so that a step
may be predicted at once and still knows the levels below; `tokens + num_quantizers - 1` steps.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal, TypeVar

import torch
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
    """`(batch, num_quantizers, tokens)` to `(batch, tokens * num_quantizers)`, token by token, level by level."""
    return codes.transpose(1, 2).flatten(1)


def unflatten_codes(flat: Tensor, num_quantizers: int) -> Tensor:
    """The inverse of `flatten_codes`.

    Raises:
        PartitaError: the length is no multiple of `num_quantizers`.
    """
    if flat.shape[-1] % num_quantizers:
        raise PartitaError(f"{flat.shape[-1]} flattened codes are no whole number of tokens of {num_quantizers} levels")
    return flat.unflatten(1, (-1, num_quantizers)).transpose(1, 2)


def delay_codes(codes: Tensor, fill: int) -> Tensor:
    """`(batch, num_quantizers, tokens)` to `(batch, num_quantizers, tokens + num_quantizers - 1)`.

    Level q is shifted by q steps to the right; the corners hold `fill`.
    """
    last = codes.shape[1] - 1
    return torch.stack([F.pad(level, (q, last - q), value=fill) for q, level in enumerate(codes.unbind(1))], dim=1)


def undelay_codes(delayed: Tensor) -> Tensor:
    """The inverse of `delay_codes`, whatever is in the corners.

    Raises:
        PartitaError: there are fewer steps than the shifts of the levels take.
    """
    tokens = delayed.shape[-1] - delayed.shape[1] + 1
    if tokens < 0:
        raise PartitaError(f"{delayed.shape[-1]} steps are too few for the delays of {delayed.shape[1]} levels")
    return torch.stack([level[:, q : q + tokens] for q, level in enumerate(delayed.unbind(1))], dim=1)


@dataclass(frozen=True)
class TokenSpace:
    """The ids that stand for the codes of one quantizer: three special ones, then a range for each level.

    An item is bos, its codes in the layout, eos, and pad up to the longest item of the batch; in the delay layout each
    of these is a step, the same for all levels. An id means the same however many levels are kept. `decode` takes
    what `encode` makes and nothing else.

    Attributes:
        codebook_sizes: codes of each level of the quantizer.
        num_quantizers: levels kept, the first ones; None for all.
        layout: "flat" for `(batch, length)`, "delay" for `(batch, num_quantizers, length)`.
    """

    codebook_sizes: tuple[int, ...]
    num_quantizers: int | None = None
    layout: Literal["flat", "delay"] = "flat"

    pad_id: ClassVar[int] = 0
    bos_id: ClassVar[int] = 1
    eos_id: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Refuses what no quantizer has."""
        sizes = self.codebook_sizes
        if not isinstance(sizes, (list, tuple)) or not all(isinstance(size, int) for size in sizes):
            raise PartitaError(f"codebook_sizes is {short_repr(sizes)}; one whole number for each level is expected")
        object.__setattr__(self, "codebook_sizes", tuple(sizes))
        levels = len(sizes)
        if not levels:
            raise PartitaError("codebook_sizes is empty; continuous latents have no token ids")
        if min(self.codebook_sizes) < 1:
            raise PartitaError(f"codebook_sizes is {self.codebook_sizes}; each level needs a code")
        resolve_num_quantizers(self.num_quantizers, levels, "this quantizer")
        if not isinstance(self.layout, str) or self.layout not in ("flat", "delay"):
            raise PartitaError(f"layout is {self.layout!r}; it is 'flat' or 'delay'")
        if self.vocab_size > 2**63 - 1:
            raise PartitaError(f"{self.vocab_size} ids do not fit int64; use a quantizer of smaller codebooks")

    @property
    def kept(self) -> tuple[int, ...]:
        """Codebook sizes of the levels that are kept."""
        return self.codebook_sizes[: self.num_quantizers]

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self._starts[-1]

    @property
    def _starts(self) -> tuple[int, ...]:
        """First id of each level, and what follows the last."""
        return tuple(accumulate(self.kept, initial=max(self.pad_id, self.bos_id, self.eos_id) + 1))

    def level_ids(self, level: int) -> range:
        """The ids of a level's codes, in the order of the codes."""
        return range(self._starts[level], self._starts[level] + self.kept[level])

    def length(self, tokens: int) -> int:
        """Ids of an item of `tokens` tokens, steps in the delay layout; bos and eos are counted."""
        return self._body(tokens) + 2

    def encode(self, codes: Tensor) -> Tensor:
        """Ids of codes; what follows the kept levels is left away.

        Args:
            codes: `(batch, num_quantizers, tokens)`, -1 past an item's end; levels that are not kept may be anything.

        Returns:
            int64 `(batch, length)`, or `(batch, kept levels, length)` in the delay layout.

        Raises:
            PartitaError: the levels are not the quantizer's, a code is none, or a kept level is missing.
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
            reason = f"level {level} is missing; leave it away for all with num_quantizers={level}"
            reason = reason if level else "-1 stands before other codes; it belongs past an item's end"
            raise PartitaError(f"item {item}, token {token}: {reason}")
        return self._arrange(codes[..., : _longest(counts)], counts)

    def decode(self, ids: Tensor) -> Tensor:
        """Codes of ids: exactly the inverse of `encode`.

        Args:
            ids: integers, `(batch, length)`, or `(batch, kept levels, length)` in the delay layout.

        Returns:
            int64 `(batch, num_quantizers, tokens)` with all levels of the quantizer, as wide as the longest item; -1
            past an item's end and in levels that are not kept.

        Raises:
            PartitaError: the ids are not such a sequence; the first that is wrong is named.
        """
        ids = self._checked(ids)
        counts = self._counts(ids)
        longest = _longest(counts)
        # The lowest and the highest sequence of these lengths: between them is all that is allowed.
        shape = (len(ids), len(self.kept), longest)
        highest = ids.new_tensor(self.kept)[:, None].expand(shape) - 1
        low, high = (
            F.pad(bound, (0, ids.shape[-1] - bound.shape[-1]), value=self.pad_id)
            for bound in (self._arrange(ids.new_zeros(shape), counts), self._arrange(highest, counts))
        )
        if len(wrong := ((ids < low) | (ids > high)).nonzero()):
            place = tuple(wrong[0].tolist())
            what = self._what(int(low[place]))
            raise PartitaError(f"item {place[0]}, position {place[-1]}: id {int(ids[place])} where {what} belongs")
        body = ids[..., 1 : 1 + self._body(longest)]
        codes = unflatten_codes(body, len(self.kept)) if self.layout == "flat" else undelay_codes(body)
        codes = torch.where(length_mask(counts, longest)[:, None], codes - self._offsets(ids), -1)
        return F.pad(codes, (0, 0, 0, len(self.codebook_sizes) - len(self.kept)), value=-1)

    def _arrange(self, codes: Tensor, counts: Tensor) -> Tensor:
        """The ids of items of `counts` tokens; codes `(batch, kept levels, max(counts))`."""
        ids = torch.where(length_mask(counts, codes.shape[-1])[:, None], codes + self._offsets(codes), self.pad_id)
        body = flatten_codes(ids) if self.layout == "flat" else delay_codes(ids, self.pad_id)
        ids = F.pad(body, (1, 1), value=self.pad_id)
        ids[..., 0] = self.bos_id
        ends = self._body(counts) + 1
        ends = ends[:, None] if self.layout == "flat" else ends[:, None, None].expand(-1, ids.shape[1], 1)
        return ids.scatter(-1, ends, self.eos_id)

    def _checked(self, ids: Tensor) -> Tensor:
        """`ids` as int64, each within the vocabulary."""
        expected = "(batch, length)" if self.layout == "flat" else f"(batch, {len(self.kept)}, length)"
        ids = as_tensor(ids, "ids")
        fits = ids.dim() == 2 if self.layout == "flat" else ids.dim() == 3 and ids.shape[1] == len(self.kept)
        if not fits or ids.is_floating_point():
            raise PartitaError(
                f"ids are {tuple(ids.shape)} {ids.dtype}; the {self.layout} layout is integer {expected}"
            )
        ids = ids.long()
        if len(wrong := ids[(ids < 0) | (ids >= self.vocab_size)]):
            raise PartitaError(f"id {int(wrong[0])} is out of range; ids are 0..{self.vocab_size - 1}")
        return ids

    def _counts(self, ids: Tensor) -> Tensor:
        """Tokens of each item, by where it ends."""
        rows = ids if self.layout == "flat" else ids[:, 0]
        is_end = rows == self.eos_id
        for item, has_end in enumerate(is_end.any(-1).tolist()):
            if not has_end:
                raise PartitaError(f"item {item} is cut short: it has no eos (id {self.eos_id})")
        if not len(rows):
            return rows.new_zeros(0)
        body = is_end.int().argmax(-1) - 1  # the first; an eos in the place of bos is found with the other ids
        levels = len(self.kept)
        counts = body // levels if self.layout == "flat" else body - (levels - 1)
        for item, (length, count) in enumerate(zip(body.tolist(), counts.tolist())):
            if length >= 0 and (count < 0 or self._body(count) != length):
                takes = f"{levels} ids a token" if self.layout == "flat" else f"at least {levels - 1} steps of delay"
                raise PartitaError(f"item {item} ends within a token: {length} before eos, there must be {takes}")
        return counts.clamp(min=0)

    def _body(self, tokens: _N) -> _N:
        """Length of the codes of `tokens` tokens in the layout."""
        return tokens * len(self.kept) if self.layout == "flat" else tokens + len(self.kept) - 1

    def _offsets(self, like: Tensor) -> Tensor:
        return like.new_tensor(self._starts[:-1])[:, None]

    def _what(self, lowest: int) -> str:
        """What belongs where `lowest` is the lowest id allowed."""
        special = {self.pad_id: "pad", self.bos_id: "bos", self.eos_id: "eos"}
        if lowest in special:
            return f"{special[lowest]} (id {lowest})"
        level = self._starts.index(lowest)
        ids = self.level_ids(level)
        return f"a code of level {level} ({ids[0]}..{ids[-1]})"


def _longest(counts: Tensor) -> int:
    return int(counts.max()) if len(counts) else 0
