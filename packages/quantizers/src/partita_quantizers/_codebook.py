"""Codebook of vector-quantize-pytorch, used for its training update, and replacement of dead codes."""

from typing import Any

import torch
from einops import rearrange
from partita_core import is_distributed
from torch import Tensor, distributed, nn


class DeadCodes(nn.Module):
    """Tracker of dead codes: codes without a token while uniform use would have given them many.

    Time is measured in tokens per code under uniform use, so it does not depend on the batch and codebook sizes. A code
    starts dead, so that the first batches replace codes that they do not use. From its first use or its replacement it
    has a patience of `after`, which doubles with each replacement: codes that the data does not need are replaced less
    and less often, and codes in use are never replaced.
    """

    idle: Tensor
    patience: Tensor

    def __init__(self, size: int, *, after: float) -> None:
        """Track `size` codes; with `after` 0, none of them is ever dead."""
        super().__init__()
        self.after = after
        self.register_buffer("idle", torch.zeros(size))  # tokens under uniform use since the last token
        self.register_buffer("patience", torch.zeros(size))

    @torch.no_grad()
    def find(self, counts: Tensor, limit: int) -> Tensor:
        """Return the codes to replace after a step, longest idle first, and renew their patience.

        Args:
            counts: `(size,)` tokens per code in the step, summed over all processes.
            limit: maximum number of codes; the remaining ones are returned in later steps.
        """
        if not self.after:
            return counts.new_empty(0, dtype=torch.int64)
        used = counts > 0
        self.idle.copy_(torch.where(used, 0, self.idle + counts.sum() / len(counts)))
        self.patience.copy_(torch.where(used, self.patience.clamp_min(self.after), self.patience))
        order = self.idle.argsort(descending=True, stable=True)
        dead = order[(self.idle > self.patience)[order]][:limit]
        self.idle[dead] = 0
        self.patience[dead] = (2 * self.patience[dead]).clamp_min(self.after)
        return dead

    def start(self) -> None:
        """Give every code its full patience, as after initialization from data."""
        self.idle.zero_()
        self.patience.fill_(self.after)


def ema_codebook(*, size: int, dim: int, normalize: bool, decay: float) -> Any:
    """Create a codebook module of the library: `embed`, `embed_avg` `(1, size, dim)`, `cluster_size` `(1, size)`.

    Every code has the weight of one token of the first step; see `learn`.
    """
    from vector_quantize_pytorch import VectorQuantize  # takes over a second to import

    # Without sync_codebook the library would check too early whether processes are distributed, and cache the result;
    # see `synchronize`.
    codebook: Any = VectorQuantize(
        dim=dim,
        codebook_size=size,
        decay=decay,
        use_cosine_sim=normalize,
        threshold_ema_dead_code=0,  # a threshold in tokens per step, which small batches never reach
        sync_codebook=False,
        rotation_trick=False,
    )._codebook
    _set_codes(codebook, torch.arange(size), codebook.embed[0].clone())
    return codebook


def learn(codebook: Any, vectors: Tensor, dead: DeadCodes) -> Tensor:
    """Update a codebook in training mode with `vectors` `(n, dim)`, replace its dead codes, and return the codes."""
    before = codebook.embed[0].clone()
    codes = codebook(vectors[None])[1][0]
    counts, available = _count(codes, len(before))
    # The library's smoothing would move a code without tokens toward zero.
    codebook.embed[0].copy_(torch.where(counts[:, None] > 0, codebook.embed[0], before))
    replaced = dead.find(counts, available)
    if len(replaced):
        _set_codes(codebook, replaced, codebook.transform_input(_sample(vectors, len(replaced))))
    return codes


def synchronize(codebook: Any) -> None:
    """Keep a codebook equal in all processes from now on; the first call broadcasts it."""
    if codebook.use_ddp or not is_distributed():
        return
    _share(codebook)
    codebook.use_ddp = True
    codebook.all_reduce_fn = distributed.all_reduce


def start_by_kmeans(codebook: Any, vectors: Tensor) -> None:
    """Set a codebook by the library's k-means on vectors `(n, dim)` of process 0, with n at least its size."""
    codebook.initted.fill_(False)
    codebook.init_embed_(vectors[None])
    _share(codebook)


def broadcast_from_main(*tensors: Tensor) -> None:
    """Broadcast tensors from process 0 in place."""
    if is_distributed():
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def _share(codebook: Any) -> None:
    broadcast_from_main(codebook.embed, codebook.embed_avg, codebook.cluster_size)


def _set_codes(codebook: Any, codes: Tensor, vectors: Tensor) -> None:
    """Set codes to vectors, with the weight of one token in one step, so that they adapt quickly to their tokens."""
    weight = 1 - codebook.decay
    codebook.embed[0, codes] = vectors.to(codebook.embed)
    codebook.embed_avg[0, codes] = weight * vectors.to(codebook.embed_avg)
    codebook.cluster_size[0, codes] = weight


def _count(codes: Tensor, size: int) -> tuple[Tensor, int]:
    """Tokens per code over all processes, `(size,)`, and the number of vectors that can be sampled from them."""
    counts = torch.bincount(codes, minlength=size).float()
    if not is_distributed():
        return counts, len(codes)
    smallest = torch.tensor(len(codes), device=codes.device)
    distributed.all_reduce(counts)
    distributed.all_reduce(smallest, distributed.ReduceOp.MIN)
    return counts, int(smallest) * distributed.get_world_size()


def _sample(vectors: Tensor, num: int) -> Tensor:
    """Sample `num` of the vectors `(n, dim)` of all processes without replacement, with equal results everywhere."""
    world = distributed.get_world_size() if is_distributed() else 1
    own = vectors[torch.randperm(len(vectors), device=vectors.device)[: -(-num // world)]]
    if world == 1:
        return own
    gathered = [torch.empty_like(own) for _ in range(world)]
    distributed.all_gather(gathered, own)
    return rearrange(gathered, "process vector dim -> (vector process) dim")[:num]
