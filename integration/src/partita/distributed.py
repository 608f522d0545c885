"""Communication between the processes of a run, besides gradients; a no-op in a single process."""

import os
import signal
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from partita_core import PartitaError
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


def check_world(num_processes: int) -> None:
    """Holds the number of processes that accelerate sees against what the launcher says.

    Processes that do not know of each other would each take itself for the only one, and all write the same output.

    Args:
        num_processes: as accelerate's `PartialState` or `Accelerator` has it.

    Raises:
        PartitaError: they are not as many as were started.
    """
    started = os.environ.get("WORLD_SIZE", str(num_processes))
    if started != str(num_processes):
        seen = f"{started} processes were started (WORLD_SIZE), and accelerate sees {num_processes}"
        raise PartitaError(f"{seen}; on a machine without a GPU set ACCELERATE_USE_CPU=true")


class StepDecision(NamedTuple):
    """The state of a run after a step, the same in all processes.

    Attributes:
        last: whether it is over.
        total_steps: how many steps there will be.
        save: whether a checkpoint is due.
        ending: the signal that ends it, or 0.
    """

    last: bool
    total_steps: int
    save: bool = False
    ending: int = 0


def broadcast_stop(accelerator: "Accelerator", mine: StepDecision) -> StepDecision:
    """One word for all: the main process's clock, and signals that have come to any process."""
    if accelerator.num_processes == 1:
        return mine
    main = accelerator.is_main_process
    ends = [mine.ending == number for number in (signal.SIGINT, signal.SIGTERM)]
    flags = [mine.last * main, mine.total_steps * main, mine.save, *ends]
    sums: Any = accelerator.reduce(torch.tensor(flags, dtype=torch.int64, device=accelerator.device), "sum")
    last, total_steps, save, interrupted, terminated = sums.tolist()
    ending = signal.SIGINT if interrupted else signal.SIGTERM if terminated else 0
    return StepDecision(bool(last), total_steps, bool(save), int(ending))


def broadcast_from_main(accelerator: "Accelerator", text: str) -> str:
    """What the main process says."""
    if accelerator.num_processes == 1:
        return text
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([text])[0]


def gather_objects(accelerator: "Accelerator", items: list[Any]) -> list[Any]:
    """The items of all processes, in their order."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def mean_over_processes(accelerator: "Accelerator", figures: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each figure over the processes that have it."""
    everyone = gather_objects(accelerator, [{name: float(value) for name, value in figures.items()}])
    names = {name: None for found in everyone for name in found}
    return {name: fmean(found[name] for found in everyone if name in found) for name in names}


def merge_skipped_files(accelerator: "Accelerator", files: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    """By file, a reason why it was left out, and how often in all processes."""
    total: dict[str, tuple[str, int]] = {}
    for found in gather_objects(accelerator, [dict(files)]):
        for file, (reason, count) in found.items():
            first, before = total.get(file, (reason, 0))
            total[file] = first, before + count
    return total
