"""Input check, straight-through gradient and error metric of the quantizers."""

import torch
from partita_core import PartitaError, Quantizer, as_tensor, tokens_within, upcast
from torch import Tensor


def receive(quantizer: Quantizer, hidden: Tensor) -> Tensor:
    """Return `hidden` in at least float32, the precision in which codes are computed.

    Raises:
        PartitaError: `hidden` is not `(batch, dim, tokens)`.
    """
    name, hidden = type(quantizer).__name__, as_tensor(hidden, "hidden frames")
    if hidden.dim() != 3 or hidden.shape[1] != quantizer.dim:
        raise PartitaError(f"{name} takes (batch, {quantizer.dim}, tokens), got {tuple(hidden.shape)}")
    return upcast(hidden)


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """Return exactly `value`, with the gradient of `source`: the added difference is zero."""
    return value + (source - source.detach())


def relative_error(values: Tensor, target: Tensor, lengths: Tensor | None) -> Tensor:
    """Power of the quantization error over the power of `target` within `lengths`, detached."""
    target = target.detach()
    error = tokens_within(values.detach() - target, lengths).square().mean()
    target = tokens_within(target, lengths)
    return error / target.square().mean().clamp(min=torch.finfo(error.dtype).tiny)
