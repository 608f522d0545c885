"""A script for torchrun: trains in two processes with the noise of a single process.

Each process of a run draws its own noise, so two processes differ from one. Here each draws for the items of all, in
the order of a single process, and takes its own share. The argument is a JSON file with the arguments of each run:
`{"family": ..., "settings": ..., "overrides": ..., "data": ..., "output": ..., "dtype": ...}`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from partita.objectives import Objective
from partita.training import stepper, train
from partita_core import override, write_tensors
from torch.overrides import TorchFunctionMode

from conftest import family_config


class Shared(TorchFunctionMode):
    """A mode in which draws over items are the share of this process of the draws over all items.

    With `windows_first`, the first dimension iterates over all items for each window, not over windows for each item.
    """

    def __init__(self, items: int, *, windows_first: bool) -> None:
        super().__init__()
        state = PartialState()
        self.items, self.windows_first = items, windows_first
        self.rank, self.world = state.process_index, state.num_processes

    def share(self, drawn: torch.Tensor) -> torch.Tensor:
        if self.windows_first:
            return drawn.unflatten(0, (-1, self.world, self.items))[:, self.rank].flatten(0, 1)
        return drawn.unflatten(0, (self.world, -1))[self.rank]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.randn_like, torch.rand_like):
            like = args[0]
            every = torch.empty_strided((self.world * len(like), *like.shape[1:]), like.stride(), dtype=like.dtype)
            return self.share(every.normal_() if func is torch.randn_like else every.uniform_())
        if func in (torch.rand, torch.randn) and kwargs.get("generator") is None:
            shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
            return self.share(func((self.world * shape[0], *shape[1:]), **kwargs))
        if func is torch.randint and kwargs.get("generator") is None:
            low, high, shape = args
            return self.share(func(low, high, (self.world * shape[0], *shape[1:]), **kwargs))
        return func(*args, **kwargs)


def main(jobs: Path) -> None:
    original, seed = Objective.__call__, stepper.hashed_seed
    family, rank, buffers = "", int(os.environ["RANK"]), {}

    def call(self: Any, batch: Any, *rest: Any) -> Any:
        assert PartialState().num_processes == 2, "two processes are needed"
        if not self.training:
            return original(self, batch, *rest)
        buffers.clear()
        buffers.update({name: tensor.detach() for name, tensor in self.named_buffers()})  # of the last step
        with Shared(len(batch["index"]), windows_first=family == "consistency"):
            return original(self, batch, *rest)

    def of_process_0(run_seed: int, *key: Any) -> int:
        return seed(run_seed, 0, *key[1:]) if len(key) == 4 else seed(run_seed, *key)

    Objective.__call__ = call  # pyright: ignore
    Accelerator.end_training = lambda self: None  # the processes stay together for the next run
    stepper.hashed_seed = of_process_0
    for job in json.loads(jobs.read_text()):
        family = job["family"]
        torch.set_default_dtype(getattr(torch, job["dtype"]))
        config = override(family_config(family, **job["settings"]), job["overrides"])
        train(config, data=job["data"], output=job["output"], progress=False)
        write_tensors(Path(job["output"]) / f"buffers_{rank}.safetensors", buffers)
    torch.distributed.destroy_process_group()
    sys.stdout.write(f"process {rank} of 2 has trained\n")  # one write, so that lines do not mix


if __name__ == "__main__":
    main(Path(sys.argv[1]))
