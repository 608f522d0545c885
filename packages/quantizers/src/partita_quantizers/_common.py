"""Input checks that both quantizers share, and the arithmetic around dropped levels."""

import torch
from partita_core import PartitaError, Quantizer, as_tensor, tokens_within, upcast
from torch import Tensor


def receive(quantizer: Quantizer, hidden: Tensor) -> Tensor:
    """`hidden` in at least float32, in which codes are decided.

    Raises:
        PartitaError: it is not `(batch, dim, tokens)`.
    """
    name, hidden = type(quantizer).__name__, as_tensor(hidden, "hidden frames")
    if hidden.dim() != 3 or hidden.shape[1] != quantizer.dim:
        raise PartitaError(f"{name} takes (batch, {quantizer.dim}, tokens), got {tuple(hidden.shape)}")
    return upcast(hidden)


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """`value`, exactly, with the gradient of `source`; added to is a zero, so not a bit of the value changes."""
    return value + (source - source.detach())


def relative_error(values: Tensor, target: Tensor, lengths: Tensor | None) -> Tensor:
    """Power of the quantization error over the power of `target` within `lengths`, detached, for the log."""
    target = target.detach()
    error = tokens_within(values.detach() - target, lengths).square().mean()
    target = tokens_within(target, lengths)
    return error / target.square().mean().clamp(min=torch.finfo(error.dtype).tiny)
