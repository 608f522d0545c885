"""The codebook of vector-quantize-pytorch, of which only the training update is used."""

from typing import Any

import torch
from partita_core import is_distributed
from torch import Tensor, distributed


def ema_codebook(*, size: int, dim: int, normalize: bool, decay: float, threshold_ema_dead_code: float) -> Any:
    """A codebook of the library, a module: `embed`, `embed_avg` `(1, size, dim)` and `cluster_size` `(1, size)`.

    In training a call with `(batch, tokens, dim)` moves it. All codes start as if just replaced, so those that the
    first batch does not use are drawn from it at once.
    """
    from vector_quantize_pytorch import VectorQuantize  # takes over a second to import

    # sync_codebook decides nothing here: left open, the library would ask whether it is distributed, too early,
    # and remember the answer for the process.
    codebook: Any = VectorQuantize(
        dim=dim,
        codebook_size=size,
        decay=decay,
        use_cosine_sim=normalize,
        threshold_ema_dead_code=threshold_ema_dead_code,  # pyright: ignore[reportArgumentType]
        sync_codebook=False,
        rotation_trick=False,
    )._codebook
    if threshold_ema_dead_code > 0:
        codebook.cluster_size.fill_(threshold_ema_dead_code)
        codebook.embed_avg.mul_(threshold_ema_dead_code)
    return codebook


def synchronise(codebook: Any) -> None:
    """Makes a codebook the same in all processes from now on, if there are several; done once."""
    if codebook.use_ddp or not is_distributed():
        return
    _share(codebook)
    codebook.use_ddp = True
    codebook.all_reduce_fn = distributed.all_reduce
    codebook.replace_sample_fn = _sample_everywhere


def start_by_kmeans(codebook: Any, vectors: Tensor) -> None:
    """Sets a codebook by the library's k-means on vectors `(n, dim)`, n at least its size; process 0 decides."""
    codebook.initted.fill_(False)
    codebook.init_embed_(vectors[None])
    _share(codebook)


def equal_everywhere(*tensors: Tensor) -> None:
    """Gives all processes the tensors of process 0."""
    if is_distributed():
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def _share(codebook: Any) -> None:
    equal_everywhere(codebook.embed, codebook.embed_avg, codebook.cluster_size)


def _sample_everywhere(samples: Tensor, num: int) -> Tensor:
    """`num` of the vectors `(1, n, dim)` of all processes, as many from each, the same in each: `(1, num, dim)`.

    The library's own way counts samples first and draws their shares from a multinomial; batches here are of one
    size.
    """
    vectors = samples[0]
    share = -(-num // distributed.get_world_size())
    if len(vectors) >= share:
        picked = torch.randperm(len(vectors), device=vectors.device)[:share]
    else:
        picked = torch.randint(len(vectors), (share,), device=vectors.device)
    mine = vectors[picked]
    everyone = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, mine)
    return torch.stack(everyone, dim=1).flatten(0, 1)[None, :num]
