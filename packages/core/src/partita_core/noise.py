"""Random numbers that depend on a key, not on the order of draws."""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def hashed_seed(*key: int | str) -> int:
    """Hash numbers and strings to a 63-bit seed, the same on every machine."""
    digest = blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_noise(seeds: Sequence[int] | Tensor, *key: int | str, shape: Sequence[int]) -> Tensor:
    """Standard normal noise, one draw per item, that depends only on (the item's seed, `key`).

    It is drawn on the CPU with one generator per item, so an item gets the same noise alone, in any batch, streamed,
    and on every device.

    Args:
        seeds: `(batch,)` integers.
        *key: identifier of the draw, such as the indices of chunk and step.
        shape: shape of the noise of one item.

    Returns:
        `(batch, *shape)` float32 on the CPU.
    """
    draws = []
    for seed in seeds.tolist() if isinstance(seeds, Tensor) else seeds:
        generator = torch.Generator().manual_seed(hashed_seed(seed, *key))
        draws.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(draws)
