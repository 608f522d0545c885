"""Whether all the processes that were started are there."""

import os

from partita_core import PartitaError


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
