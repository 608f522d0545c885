"""Batches of items of unequal length: masks of padding, and statistics without padding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .arrays import as_integers
from .distributed import process_mean


def length_mask(lengths: Tensor | Sequence[int], n: int) -> Tensor:
    """Mask `(batch, n)` on the device of `lengths`: True up to each item's length, False for padding after it.

    Args:
        lengths: `(batch,)` int64.
        n: length of the padded batch.
    """
    lengths = as_integers(lengths, "lengths")
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def tokens_within(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Select the vectors of `(batch, dim, tokens)` that are not padding, as `(count, dim)`.

    Args:
        x: padded vectors.
        lengths: `(batch,)`, number of tokens of each item; None if all items are full.
    """
    if lengths is None:
        return x.mT.flatten(0, 1)
    return x.mT[length_mask(lengths, x.shape[-1]).to(x.device)]


def mean_within(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of `(batch, tokens)` without padding; call it in all processes, see `process_mean`.

    Args:
        x: one value per token.
        lengths: `(batch,)`, number of tokens of each item; None if all items are full, in all processes.
    """
    if lengths is None:
        return x.mean()
    mask = length_mask(lengths, x.shape[-1]).to(x.device)
    return process_mean(torch.where(mask, x, 0).sum(), mask.sum())


def codes_within(codes: Tensor, lengths: Tensor | None) -> Tensor:
    """Set the padding of codes `(batch, num_quantizers, tokens)` to -1; None for `lengths` if there is no padding."""
    if lengths is None:
        return codes
    mask = length_mask(lengths, codes.shape[-1]).to(codes.device)
    return torch.where(mask[:, None], codes, -1)


@torch.no_grad()
def update_average(running: Tensor, value: Tensor, share: float | Tensor) -> None:
    """Update a running average in place: `running += share * (value - running)`; non-finite elements are ignored.

    Args:
        running: running average, of any shape.
        value: statistic of this step, of the same shape.
        share: weight of `value`, from 0 to 1.
    """
    value = value.to(running.dtype)
    running.lerp_(torch.where(value.isfinite(), value, running), share)
