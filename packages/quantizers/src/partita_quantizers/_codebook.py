"""The codebook of vector-quantize-pytorch, of which only the training update is used, and the redrawing of codes."""

from typing import Any

import torch
from partita_core import is_distributed
from torch import Tensor, distributed, nn


class DeadCodes(nn.Module):
    """Which codes of a codebook have died: those that got no token when even use would have given them many.

    A code begins its life dead, so that the first batches replace what they do not use. From its first use, or its
    replacement, it has `after` such tokens of patience, which doubles each time it is replaced. So the patience is the
    same number of tokens whatever the batch and the size of the codebook, a code that the data has no use for is
    replaced ever more rarely, and one that is used at all is left alone.
    """

    idle: Tensor
    patience: Tensor

    def __init__(self, size: int, *, after: float) -> None:
        """Counts `size` codes; with `after` 0 none of them dies."""
        super().__init__()
        self.after = after
        self.register_buffer("idle", torch.zeros(size))  # tokens of even use since the last one that it got
        self.register_buffer("patience", torch.zeros(size))

    @torch.no_grad()
    def find(self, counts: Tensor, limit: int) -> Tensor:
        """The codes to replace after a step, those that have been idle for longest first; their patience is renewed.

        Args:
            counts: `(size,)` tokens that each code got in the step, in all processes.
            limit: codes that can be replaced now; the rest has its turn in the next steps.
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
        """Give every code its patience, as after a start on data."""
        self.idle.zero_()
        self.patience.fill_(self.after)


def ema_codebook(*, size: int, dim: int, normalize: bool, decay: float) -> Any:
    """A codebook of the library, a module: `embed`, `embed_avg` `(1, size, dim)` and `cluster_size` `(1, size)`.

    Every code weighs as much as one token of the first step; see `learn`.
    """
    from vector_quantize_pytorch import VectorQuantize  # takes over a second to import

    # sync_codebook decides nothing here: left open, the library would ask whether it is distributed, too early,
    # and remember the answer for the process.
    codebook: Any = VectorQuantize(
        dim=dim,
        codebook_size=size,
        decay=decay,
        use_cosine_sim=normalize,
        threshold_ema_dead_code=0,  # its threshold is in tokens per step, which small batches never reach
        sync_codebook=False,
        rotation_trick=False,
    )._codebook
    _place(codebook, torch.arange(size), codebook.embed[0].clone())
    return codebook


def learn(codebook: Any, vectors: Tensor, dead: DeadCodes) -> Tensor:
    """Move a codebook in training mode towards `vectors` `(n, dim)`, replace its dead codes, and return their codes."""
    before = codebook.embed[0].clone()
    codes = codebook(vectors[None])[1][0]
    counts, available = _counted(codes, len(before))
    # The library's smoothing draws a code without tokens towards zero.
    codebook.embed[0].copy_(torch.where(counts[:, None] > 0, codebook.embed[0], before))
    replaced = dead.find(counts, available)
    if len(replaced):
        _place(codebook, replaced, codebook.transform_input(_sample_everywhere(vectors, len(replaced))))
    return codes


def synchronize(codebook: Any) -> None:
    """Makes a codebook the same in all processes from now on, if there are several; done once."""
    if codebook.use_ddp or not is_distributed():
        return
    _share(codebook)
    codebook.use_ddp = True
    codebook.all_reduce_fn = distributed.all_reduce


def start_by_kmeans(codebook: Any, vectors: Tensor) -> None:
    """Sets a codebook by the library's k-means on vectors `(n, dim)`, n at least its size; process 0 decides."""
    codebook.initted.fill_(False)
    codebook.init_embed_(vectors[None])
    _share(codebook)


def broadcast_from_main(*tensors: Tensor) -> None:
    """Gives all processes the tensors of process 0."""
    if is_distributed():
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def _share(codebook: Any) -> None:
    broadcast_from_main(codebook.embed, codebook.embed_avg, codebook.cluster_size)


def _place(codebook: Any, codes: Tensor, vectors: Tensor) -> None:
    """Sets codes to vectors, with the weight of one token in one step: they follow the first tokens that they get."""
    weight = 1 - codebook.decay
    codebook.embed[0, codes] = vectors.to(codebook.embed)
    codebook.embed_avg[0, codes] = weight * vectors.to(codebook.embed_avg)
    codebook.cluster_size[0, codes] = weight


def _counted(codes: Tensor, size: int) -> tuple[Tensor, int]:
    """Tokens of each code in all processes `(size,)`, and how many different vectors can be drawn from all of them."""
    counts = torch.bincount(codes, minlength=size).float()
    if not is_distributed():
        return counts, len(codes)
    fewest = torch.tensor(len(codes), device=codes.device)
    distributed.all_reduce(counts)
    distributed.all_reduce(fewest, distributed.ReduceOp.MIN)
    return counts, int(fewest) * distributed.get_world_size()


def _sample_everywhere(vectors: Tensor, num: int) -> Tensor:
    """`num` of the vectors `(n, dim)` of all processes, as many from each, none twice, the same in each process."""
    world = distributed.get_world_size() if is_distributed() else 1
    mine = vectors[torch.randperm(len(vectors), device=vectors.device)[: -(-num // world)]]
    if world == 1:
        return mine
    everyone = [torch.empty_like(mine) for _ in range(world)]
    distributed.all_gather(everyone, mine)
    return torch.stack(everyone, dim=1).flatten(0, 1)[:num]
