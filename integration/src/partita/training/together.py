"""What the processes of a run tell each other, beside gradients; in one alone nothing is told."""

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


def agree(accelerator: "Accelerator", last: bool, total_steps: int) -> tuple[bool, int]:
    """The main process's word on whether the run is over and how long it is, since each has a clock of its own."""
    if accelerator.num_processes == 1:
        return last, total_steps
    from accelerate.utils import broadcast

    word: Any = broadcast(torch.tensor([int(last), total_steps], device=accelerator.device))
    over, steps = word.tolist()
    return bool(over), steps


def of_main(accelerator: "Accelerator", text: str) -> str:
    """What the main process says."""
    if accelerator.num_processes == 1:
        return text
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([text])[0]


def gathered(accelerator: "Accelerator", items: list[Any]) -> list[Any]:
    """The items of all processes, in their order."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def everywhere(accelerator: "Accelerator", figures: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each figure over the processes that have it."""
    everyone = gathered(accelerator, [{name: float(value) for name, value in figures.items()}])
    names = {name: None for found in everyone for name in found}
    return {name: fmean(found[name] for found in everyone if name in found) for name in names}


def all_left_out(accelerator: "Accelerator", files: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    """By file, a reason why it was left out, and how often in all processes."""
    total: dict[str, tuple[str, int]] = {}
    for found in gathered(accelerator, [dict(files)]):
        for file, (reason, count) in found.items():
            first, before = total.get(file, (reason, 0))
            total[file] = first, before + count
    return total
