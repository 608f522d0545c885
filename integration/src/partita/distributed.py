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
    """Check that accelerate found all the processes that a launcher started.

    Otherwise each process would run as a single one, and all would write the same output.

    Args:
        num_processes: `num_processes` of accelerate's `PartialState` or `Accelerator`.

    Raises:
        PartitaError: it differs from the number of started processes.
    """
    started = os.environ.get("WORLD_SIZE", str(num_processes))
    if started != str(num_processes):
        counts = f"{started} processes were started (WORLD_SIZE), but accelerate found {num_processes}"
        raise PartitaError(f"{counts}; on a machine without a GPU, set ACCELERATE_USE_CPU=true")


class StepDecision(NamedTuple):
    """Decisions after a step, the same in all processes.

    Attributes:
        last: True if this was the last step.
        total_steps: number of steps of the whole run.
        save: True if a checkpoint is due.
        ending: number of the signal that ends the run, or 0.
    """

    last: bool
    total_steps: int
    save: bool = False
    ending: int = 0


def broadcast_stop(accelerator: "Accelerator", mine: StepDecision) -> StepDecision:
    """Decide for all processes: by the clock of the main process, and signals received by any process."""
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
    """The `text` of the main process, in all processes."""
    if accelerator.num_processes == 1:
        return text
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([text])[0]


def gather_objects(accelerator: "Accelerator", items: list[Any]) -> list[Any]:
    """The items of all processes, in the order of the processes."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def mean_over_processes(accelerator: "Accelerator", values: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean of each value over the processes that have it."""
    everyone = gather_objects(accelerator, [{name: float(value) for name, value in values.items()}])
    names = {name: None for found in everyone for name in found}
    return {name: fmean(found[name] for found in everyone if name in found) for name in names}


def merge_skipped_files(accelerator: "Accelerator", files: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    """Reason and total count of each skipped file, by name, over all processes."""
    total: dict[str, tuple[str, int]] = {}
    for found in gather_objects(accelerator, [dict(files)]):
        for file, (reason, count) in found.items():
            first, before = total.get(file, (reason, 0))
            total[file] = first, before + count
    return total
