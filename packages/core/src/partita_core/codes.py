"""Codes and the number of their levels, checked against the codebooks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arrays import as_integers
from .errors import PartitaError, short_repr


def check_codes(codes: Any, codebook_sizes: Sequence[int]) -> Tensor:
    """Codes as int64 `(batch, levels, tokens)`, each of its codebook, or -1 for a level that is left out.

    The numbers are read, which on an accelerator waits for them, so this belongs at the boundary of a model and not in
    what is trained. While a graph is traced there are no numbers yet, and only the shape is checked.

    Args:
        codes: integers of any width, as a tensor, an array or nested lists.
        codebook_sizes: number of codes of each level.

    Raises:
        PartitaError: shape, type or a code does not fit; the first such code is named.
    """
    codes, levels = as_integers(codes, "codes"), len(codebook_sizes)
    if codes.dim() != 3 or codes.shape[1] != levels:
        expected = f"(batch, {levels}, tokens), with -1 for a missing level,"
        raise PartitaError(f"codes are {tuple(codes.shape)}; {expected} is expected")
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or codes.is_meta:
        return codes
    sizes = codes.new_tensor(codebook_sizes)[:, None]
    if len(wrong := ((codes < -1) | (codes >= sizes)).nonzero()):
        item, level, token = wrong[0].tolist()
        code, size = int(codes[item, level, token]), codebook_sizes[level]
        raise PartitaError(f"item {item}: {code} is no code of level {level}, which has {size}")
    return codes


def resolve_num_quantizers(num_quantizers: int | None, levels: int, owner: str) -> int:
    """Number of levels that `num_quantizers` asks for; None asks for all `levels`.

    Args:
        num_quantizers: levels asked for.
        levels: levels that there are.
        owner: name of what has them, for messages.

    Raises:
        PartitaError: it is no integer from 1 to `levels`.
    """
    if num_quantizers is None:
        return levels
    if not isinstance(num_quantizers, int) or not 1 <= num_quantizers <= levels:
        raise PartitaError(f"num_quantizers is {short_repr(num_quantizers)}; {owner} has {levels} levels of codes")
    return num_quantizers
