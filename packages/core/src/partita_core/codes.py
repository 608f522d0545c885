"""Checks of codes and of the number of quantizer levels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arrays import as_integers
from .errors import PartitaError, short_repr


def check_codes(codes: Any, codebook_sizes: Sequence[int]) -> Tensor:
    """Check codes `(batch, levels, tokens)` against their codebooks and return them as int64; -1 is a dropped level.

    Reading the codes synchronizes with an accelerator, so call this at the boundary of a model, not within training.
    While a graph is traced, only the shape is checked.

    Args:
        codes: integers of any width, as a tensor, an array or nested lists.
        codebook_sizes: number of codes per level.

    Raises:
        PartitaError: the shape or type does not fit, or a code is out of range; the first such code is named.
    """
    codes, levels = as_integers(codes, "codes"), len(codebook_sizes)
    if codes.dim() != 3 or codes.shape[1] != levels:
        expected = f"(batch, {levels}, tokens), with -1 for a dropped level,"
        raise PartitaError(f"codes are {tuple(codes.shape)}; {expected} is expected")
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or codes.is_meta:
        return codes
    sizes = codes.new_tensor(codebook_sizes)[:, None]
    if len(wrong := ((codes < -1) | (codes >= sizes)).nonzero()):
        item, level, token = wrong[0].tolist()
        code, size = int(codes[item, level, token]), codebook_sizes[level]
        raise PartitaError(f"code {code} of item {item} is out of range; level {level} has {size} codes")
    return codes


def resolve_num_quantizers(num_quantizers: int | None, levels: int, owner: str) -> int:
    """Return `num_quantizers`, or all `levels` if it is None.

    Args:
        num_quantizers: number of levels to use.
        levels: number of levels available.
        owner: name of the model or quantizer in messages.

    Raises:
        PartitaError: `num_quantizers` is not an integer from 1 to `levels`.
    """
    if num_quantizers is None:
        return levels
    if not isinstance(num_quantizers, int) or not 1 <= num_quantizers <= levels:
        raise PartitaError(f"num_quantizers is {short_repr(num_quantizers)}; {owner} has {levels} levels of codes")
    return num_quantizers
