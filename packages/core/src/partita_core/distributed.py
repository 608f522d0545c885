"""Statistics over all processes of distributed training."""

import torch
from torch import Tensor, distributed


def process_mean(total: Tensor, count: Tensor) -> Tensor:
    """Mean of a loss whose average over all processes is its mean over the entries of all processes.

    Data-parallel training averages gradients over processes. If each process divided by its own count, entries of a
    process with few entries (short files) would weigh more. So every process divides by the mean count.

    With gradients enabled, call it in all processes. Without gradients, as in an evaluation on one process, it is the
    plain mean.

    Args:
        total: sum of the entries of this process; any shape.
        count: number of these entries, or another denominator; same shape as `total`.

    Returns:
        `total` divided by the mean of `count` over processes; zero where that is zero.
    """
    count = count.detach()
    if torch.is_grad_enabled() and is_distributed():
        # One dtype in all processes: a process without texts may run without autocast.
        shared = count.double()
        distributed.all_reduce(shared)
        count = shared / distributed.get_world_size()
    count = count.to(total.dtype)
    return total / torch.where(count > 0, count, 1)


def is_distributed() -> bool:
    """Return True if several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
