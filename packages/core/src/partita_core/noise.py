"""Random numbers that depend on names, not on order."""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def hashed_seed(*key: int | str) -> int:
    """A 63-bit seed from the numbers and words of `key`: equal keys, equal seeds, on every machine."""
    digest = blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_noise(seeds: Sequence[int] | Tensor, *key: int | str, shape: Sequence[int]) -> Tensor:
    """Standard normal noise, one draw for each item, that depends on (its seed, `key`) only.

    It is drawn on the CPU, one generator an item, so that an item gets the same noise alone, in any batch,
    streamed, and on every device.

    Args:
        seeds: `(batch,)` integers.
        *key: what tells draws apart, as the number of the chunk and of the step.
        shape: of one item.

    Returns:
        `(batch, *shape)` float32 on the CPU.
    """
    draws = []
    for seed in seeds.tolist() if isinstance(seeds, Tensor) else seeds:
        generator = torch.Generator().manual_seed(hashed_seed(seed, *key))
        draws.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(draws)
