"""Checkpoints of a run: safetensors and JSON, written atomically, so that a kill leaves the last good one."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from partita_core import (
    PartitaError,
    atomic_write,
    check_vacant,
    from_dict,
    load_weights,
    read_json,
    read_tensors,
    to_dict,
    write_json,
    write_tensors,
)
from torch import nn

from partita.data import StreamPosition
from partita.objectives.objective import TrainState

from .ema import EMA
from .optimizer_state import pack_optimizer, unpack_optimizer
from .run import RunFolder
from .run_data import DataFingerprint

_PREFIX = "step_"
_NAME = re.compile(_PREFIX + r"\d{8,}")


@dataclass(frozen=True)
class CheckpointMetadata:
    """Contents of a checkpoint besides weights, optimizers and the step.

    Attributes:
        seconds: training time of the run.
        cpu_seconds: processor time of the training in the main process.
        frozen: hashes of the frozen modules.
        consecutive_skips: number of the last steps that were skipped because they were not finite.
        averages: running averages of `MetricAlarms`.
        positions: positions in the streams of each process, for streamed data; see `StreamLoader`.
        skipped_files: first reason and count by name of the files that could not be used.
        data: fingerprint of the training files.
    """

    seconds: float
    cpu_seconds: float = 0.0
    frozen: tuple[str, ...] = ()
    consecutive_skips: int = 0
    averages: dict[str, tuple[float, int]] = field(default_factory=dict)
    positions: tuple[tuple[StreamPosition, ...], ...] = ()
    skipped_files: dict[str, tuple[str, int]] = field(default_factory=dict)
    data: DataFingerprint = DataFingerprint()


@dataclass(frozen=True)
class _StateFile:
    """Contents of `state.json`."""

    step: int
    total_steps: int
    metadata: CheckpointMetadata
    since: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        """Check that a run can be in this state."""
        if not 0 <= self.step <= self.total_steps:
            raise PartitaError(f"step is {self.step}; it must be from 0 to total_steps, {self.total_steps}")
        if not (0 <= self.since[0] <= self.step and 0 <= self.since[1] <= 1):
            raise PartitaError(f"since is {self.since}; it must be a step up to {self.step} and a progress in [0, 1]")
        found = self.metadata
        counts = {name: getattr(found, name) for name in ("seconds", "cpu_seconds", "consecutive_skips")}
        if min(counts.values()) < 0:
            raise PartitaError(
                ", ".join(f"{name} is {value}" for name, value in counts.items()) + "; they must be at least 0"
            )


def save_checkpoint(
    run: RunFolder,
    *,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    ema: EMA | None,
    state: TrainState,
    metadata: CheckpointMetadata,
    keep: int,
) -> Path:
    """Write `checkpoints/step_00000400`, and remove all but the last `keep` checkpoints that the run wrote.

    Args:
        run: folder of the run.
        objective: objective with the model, the discriminators and the balancer.
        optimizers: optimizers by phase.
        ema: averaged weights; None for none.
        state: progress of the run.
        metadata: everything else to restore.
        keep: number of checkpoints to keep.

    Raises:
        PartitaError: the folder cannot be written, or holds files of others.
    """
    path = run.checkpoints / f"{_PREFIX}{state.step:08d}"
    if path.name not in run.written():
        check_vacant(path)
        run.record("write", path.name)
    with atomic_write(path, own=True) as aside:
        aside.mkdir()
        write_tensors(aside / "objective.safetensors", objective.state_dict())
        for phase, optimizer in optimizers.items():
            tensors, groups = pack_optimizer(optimizer)
            write_tensors(aside / f"optimizer_{phase}.safetensors", tensors)
            write_json(aside / f"optimizer_{phase}.json", groups)
        if ema is not None:
            write_tensors(aside / "ema.safetensors", ema.tensors)
        write_json(aside / "state.json", to_dict(_StateFile(state.step, state.total_steps, metadata, state.since)))
    own = run.written()
    for old in [found for found in checkpoints(run.checkpoints) if found.name in own][:-keep]:
        shutil.rmtree(old)
        run.record("delete", old.name)
    return path


def load_checkpoint(
    path: Path,
    *,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    ema: EMA | None,
) -> tuple[TrainState, CheckpointMetadata]:
    """Load a checkpoint into objective, optimizers and averages, and return the rest.

    Raises:
        PartitaError: the checkpoint is damaged, or belongs to another run.
    """
    for phase, optimizer in optimizers.items():
        tensors, _ = read_tensors(path / f"optimizer_{phase}.safetensors")
        unpack_optimizer(optimizer, tensors, read_json(path / f"optimizer_{phase}.json"))
    tensors, _ = read_tensors(path / "objective.safetensors")
    load_weights(objective, tensors, path)
    if ema is not None:
        ema.load(read_tensors(path / "ema.safetensors")[0], path)
    saved = from_dict(_StateFile, read_json(path / "state.json"), where=str(path / "state.json"))
    return TrainState(saved.step, saved.total_steps, saved.since), saved.metadata


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def last_checkpoint(run: RunFolder) -> Path | None:
    """Last checkpoint that the run wrote, or the last one in the folder if the run has no list of them."""
    found = checkpoints(run.checkpoints)
    own = run.written()
    return next((path for path in reversed(found) if path.name in own), found[-1] if found and not own else None)
