"""Several processes that train as one."""

import torch
from torch import Tensor, distributed


def process_mean(total: Tensor, count: Tensor) -> Tensor:
    """The mean of what a loss counts, such that its mean over all processes is that over all entries.

    Gradients are averaged over processes. If each took the mean over its own entries, those of a process that has few,
    for its files are short, would weigh more than those of another. So the count is that of all, shared evenly.

    Called with gradients, it must be called in all processes; without them, as in an evaluation, which is one
    process's alone, it is the plain mean.

    Args:
        total: the sum of the entries that count in this process; any shape.
        count: how many they are, or what else is to be divided by; as much.

    Returns:
        `total / count`, with the mean over processes of `count`; zero where nothing counts anywhere.
    """
    count = count.detach()
    if torch.is_grad_enabled() and is_distributed():
        # Of one dtype in all processes, whatever those of their totals are: one that has no texts may have no autocast.
        shared = count.double()
        distributed.all_reduce(shared)
        count = shared / distributed.get_world_size()
    count = count.to(total.dtype)
    return total / torch.where(count > 0, count, 1)


def is_distributed() -> bool:
    """Whether there are several processes that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
