"""Batches of unequal items: which of their positions are signal, which padding, and statistics of the signal alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .arrays import as_integers
from .distributed import process_mean


def length_mask(lengths: Tensor | Sequence[int], n: int) -> Tensor:
    """A mask `(batch, n)` on the device of `lengths`: True up to each item's length, False for the padding behind it.

    Args:
        lengths: `(batch,)` int64.
        n: positions of the padded batch.
    """
    lengths = as_integers(lengths, "lengths")
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def tokens_within(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The vectors of `(batch, dim, tokens)` that are no padding, `(count, dim)`, one item after the other.

    Args:
        x: padded vectors.
        lengths: `(batch,)` tokens of each item; None where all items are full.
    """
    if lengths is None:
        return x.mT.flatten(0, 1)
    return x.mT[length_mask(lengths, x.shape[-1]).to(x.device)]


def mean_within(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The mean of `(batch, tokens)` over what is no padding; called in all processes, see `process_mean`.

    Args:
        x: a value per token.
        lengths: `(batch,)` tokens of each item; None where all items are full, in all processes.
    """
    if lengths is None:
        return x.mean()
    mask = length_mask(lengths, x.shape[-1]).to(x.device)
    return process_mean(torch.where(mask, x, 0).sum(), mask.sum())


def codes_within(codes: Tensor, lengths: Tensor | None) -> Tensor:
    """Codes `(batch, num_quantizers, tokens)` with -1 in the padding behind `lengths`; None: there is no padding."""
    if lengths is None:
        return codes
    mask = length_mask(lengths, codes.shape[-1]).to(codes.device)
    return torch.where(mask[:, None], codes, -1)


@torch.no_grad()
def update_average(running: Tensor, value: Tensor, share: float | Tensor) -> None:
    """Move a running average in place by `share` of its distance to `value`; elements that are not finite are ignored.

    Args:
        running: the average, of any shape.
        value: the statistic of this step, as much.
        share: from 0 (nothing moves) to 1 (the value is taken over).
    """
    value = value.to(running.dtype)
    running.lerp_(torch.where(value.isfinite(), value, running), share)
