"""Input check and metrics of all bottlenecks."""

from partita_core import Bottleneck, PartitaError, as_tensor, tokens_within, upcast
from torch import Tensor


def receive(bottleneck: Bottleneck, hidden: Tensor) -> Tensor:
    """Return `hidden` in at least float32, because statistics and noise in half precision would distort the latents.

    Raises:
        PartitaError: `hidden` is not `(batch, in_dim, tokens)`, or has no tokens.
    """
    name, hidden = type(bottleneck).__name__, as_tensor(hidden, "hidden frames")
    if hidden.dim() != 3:
        raise PartitaError(f"{name} takes (batch, {bottleneck.in_dim}, tokens), got {tuple(hidden.shape)}")
    if not hidden.shape[2]:
        raise PartitaError(f"{name} takes at least one token, got {tuple(hidden.shape)}")
    if hidden.shape[1] != bottleneck.in_dim:
        raise PartitaError(
            f"{name} with dim {bottleneck.dim} takes {bottleneck.in_dim} channels, got {hidden.shape[1]}; "
            "set the encoder's out_dim to the bottleneck's in_dim"
        )
    return upcast(hidden)


def rms(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Root mean square of `(batch, dim, tokens)` within `lengths`, detached."""
    return tokens_within(x.detach(), lengths).square().mean().sqrt()


def channel_std(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Population standard deviation of each channel over batch and time, `(dim,)`, detached."""
    return tokens_within(x.detach(), lengths).std(dim=0, correction=0)
