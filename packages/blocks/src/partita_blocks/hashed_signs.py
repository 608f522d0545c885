"""Random signs that depend on latents alone, for noise that is the same in a stream, a tile and a batch."""

import torch
from torch import Tensor

# Odd constants of multiplicative hashing; products wrap around modulo 2^64.
_FRAME, _BIN, _MIX = -7046029254386353131, -4417276706812531889, -49064778989728563
_STEPS_PER_UNIT = 16


def hashed_signs(latents: Tensor, count: int) -> Tensor:
    """Signs that look random, a function of each latent vector and of its two neighbors.

    Frames of the same three vectors get the same signs. Latents are rounded to 1/16 first.

    Args:
        latents: `(batch, dim, frames)`.
        count: number of signs per frame.

    Returns:
        `(batch, count, frames)`, 1 or -1, in the dtype of the latents.
    """
    device = latents.device
    rounded = (latents.detach().float().clamp(-1e6, 1e6) * _STEPS_PER_UNIT).round().to(torch.int64)
    channels = torch.arange(1, latents.shape[1] + 1, device=device) * _FRAME | 1
    keys = (rounded * channels[:, None]).sum(1)
    before, after = (torch.nn.functional.pad(keys, pad) for pad in ((1, 0), (0, 1)))
    keys = _mixed(keys + 3 * before[:, :-1] + 5 * after[:, 1:])
    bins = torch.arange(1, count + 1, device=device) * _BIN
    return 1 - 2 * (_mixed(keys[:, None] + bins[:, None]) & 1).to(latents.dtype)


def _mixed(x: Tensor) -> Tensor:
    """Mix the bits of integers, so that the lowest depends on all of them."""
    x = (x ^ (x >> 32)) * _MIX
    x = (x ^ (x >> 29)) * _BIN
    return x ^ (x >> 31)
