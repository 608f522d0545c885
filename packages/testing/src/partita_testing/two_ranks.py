"""Check that two processes that train on different data keep equal state, for all components in one process pair.

`torchrun --nproc_per_node 2 -m partita_testing.two_ranks "bottleneck/*" "quantizer/*"`; these are the defaults.
"""

import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
from partita_core.registry import Config, components
from torch import distributed, nn

from ._common import expect, noise, shake, total
from .bottlenecks import BottleneckCase

_STEPS = 2


def check_two_ranks(configs: Sequence[Config]) -> None:
    """Train bottlenecks and quantizers for two steps in this process, and compare their state with the other process.

    Call it once in each process that `torchrun` starts. Components are built *before* the process group, as by
    `example()`, since a component may cache whether training is distributed.

    Raises:
        AssertionError: there are not two processes, or the state of components differs; all of them are named.
    """
    cases = [BottleneckCase(config) for config in configs]
    modules: list[nn.Module] = []
    for case in cases:
        torch.manual_seed(0)
        module = case.make()
        shake(module)
        modules.append(module.train())
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    try:
        world, rank = distributed.get_world_size(), distributed.get_rank()
        expect(world == 2, f"there are {world} processes, 2 are needed; start with torchrun --nproc_per_node 2")
        failures = []
        for case, module in zip(cases, modules):
            _train(module, case, rank)
            failures += [f"{case.name}: {name}" for name in _different(module)]
        expect(not failures, f"after {_STEPS} steps on different data the ranks differ in {', '.join(failures)}")
    finally:
        distributed.destroy_process_group()


def _train(module: nn.Module, case: BottleneckCase, rank: int) -> None:
    torch.manual_seed(rank)  # noise differs between processes, as in training
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3) if trained else None
    for step in range(_STEPS):
        hidden = (1 + rank) * noise(4, module.in_dim, 16, seed=10 * step + rank, dtype=torch.float32)  # pyright: ignore
        output = module(hidden.requires_grad_())
        total((output.values, output.losses)).backward()
        for parameter in trained:  # as DistributedDataParallel does; buffers are up to the component
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= 2
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()


def _different(module: nn.Module) -> list[str]:
    """Names of the parameters and buffers that differ between the ranks."""
    names = []
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        mine = tensor.detach().contiguous()
        both = [torch.empty_like(mine) for _ in range(2)]
        distributed.all_gather(both, mine)
        if not torch.equal(*both):
            names.append(name)
    return names


def main(patterns: Sequence[str]) -> None:
    """Check the examples of the registered components whose tags match `patterns`."""
    found = {tag: cls for pattern in patterns for tag, cls in components(pattern).items()}
    expect(bool(found), f"no component matches {' '.join(patterns)}")
    check_two_ranks([found[tag].example() for tag in sorted(found)])
    sys.stdout.write(f"equal on two ranks: {', '.join(sorted(found))}\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ("bottleneck/*", "quantizer/*"))
