"""Checkpoints: safetensors and JSON, written whole, so that a kill leaves the last good one."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from partita_core import (
    PartitaError,
    atomic_write,
    check_finite,
    check_vacant,
    from_dict,
    load_weights,
    read_json,
    read_tensors,
    shorten,
    shown,
    to_dict,
    write_json,
    write_tensors,
)
from torch import Tensor, nn

from partita.data import StreamPosition
from partita.objectives.objective import TrainState

from .optimization import EMA
from .run import RunFolder, first_difference

_PREFIX = "step_"
_NAME = re.compile(_PREFIX + r"\d{8,}")


@dataclass(frozen=True)
class Facts:
    """What a checkpoint holds beside the weights, the optimizers and the step.

    Attributes:
        seconds: that the run has taken.
        frozen: hashes of the modules that are not trained.
        skipped: steps in a row that were left out, for not being finite.
        averages: what `Watch` remembers.
        positions: where the streams of each process stand, if the data is one; see `StreamLoader`.
        broken: files that were left out: of each the first reason, and how often.
        data: what the files are called by, all in all; empty of a stream.
        contents: digests of some of the files, by name.
    """

    seconds: float
    frozen: tuple[str, ...] = ()
    skipped: int = 0
    averages: dict[str, tuple[float, int]] = field(default_factory=dict)
    positions: tuple[tuple[StreamPosition, ...], ...] = ()
    broken: dict[str, tuple[str, int]] = field(default_factory=dict)
    data: str = ""
    contents: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Saved:
    """What `state.json` says."""

    step: int
    total_steps: int
    facts: Facts
    since: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        """Refuses what no run has come to."""
        if not 0 <= self.step <= self.total_steps:
            raise PartitaError(f"step is {self.step}, of {self.total_steps}")
        if not (0 <= self.since[0] <= self.step and 0 <= self.since[1] <= 1):
            raise PartitaError(f"step is {self.step}, and schedules were changed at {self.since}")
        if self.facts.seconds < 0 or self.facts.skipped < 0:
            raise PartitaError(f"the run has taken {self.facts.seconds} s and skipped {self.facts.skipped} steps")


def save_checkpoint(
    run: RunFolder,
    *,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    ema: EMA | None,
    state: TrainState,
    facts: Facts,
    keep: int,
) -> Path:
    """Write `checkpoints/step_00000400` and remove all but the last `keep` that the run wrote.

    Args:
        run: the folder of the run.
        objective: with the model, the discriminators and the balancer.
        optimizers: by phase.
        ema: the averages, or None.
        state: where the run is.
        facts: what else must come back.
        keep: checkpoints to leave.

    Raises:
        PartitaError: the place cannot be written, or holds what the run did not write.
    """
    path = run.checkpoints / f"{_PREFIX}{state.step:08d}"
    if path.name not in run.written():
        check_vacant(path)
        run.note("write", path.name)
    with atomic_write(path, own=True) as aside:
        aside.mkdir()
        write_tensors(aside / "objective.safetensors", objective.state_dict())
        for phase, optimizer in optimizers.items():
            tensors, groups = pack_optimizer(optimizer)
            write_tensors(aside / f"optimizer_{phase}.safetensors", tensors)
            write_json(aside / f"optimizer_{phase}.json", groups)
        if ema is not None:
            write_tensors(aside / "ema.safetensors", ema.tensors)
        write_json(aside / "state.json", to_dict(_Saved(state.step, state.total_steps, facts, state.since)))
    own = run.written()
    for old in [found for found in checkpoints(run.checkpoints) if found.name in own][:-keep]:
        shutil.rmtree(old)
        run.note("delete", old.name)
    return path


def load_checkpoint(
    path: Path,
    *,
    objective: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    ema: EMA | None,
) -> tuple[TrainState, Facts]:
    """Brings everything back to where `save_checkpoint` found it; returns the state and the facts.

    Raises:
        PartitaError: the checkpoint is damaged, or of another run.
    """
    tensors, _ = read_tensors(path / "objective.safetensors")
    load_weights(objective, tensors, path)
    for phase, optimizer in optimizers.items():
        tensors, _ = read_tensors(path / f"optimizer_{phase}.safetensors")
        unpack_optimizer(optimizer, tensors, read_json(path / f"optimizer_{phase}.json"))
    if ema is not None:
        ema.load(read_tensors(path / "ema.safetensors")[0], path)
    saved = from_dict(_Saved, read_json(path / "state.json"), where=str(path / "state.json"))
    return TrainState(saved.step, saved.total_steps, saved.since), saved.facts


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def last_checkpoint(run: RunFolder) -> Path | None:
    """The last checkpoint that the run wrote; of a run that kept no list of them, the last that is there."""
    found = checkpoints(run.checkpoints)
    own = run.written()
    return next((path for path in reversed(found) if path.name in own), found[-1] if found and not own else None)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """An optimizer's state as tensors named `{parameter}.{key}`, and its groups as JSON holds them."""
    packed = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entries in packed["state"].items()
        for key, value in entries.items()
    }
    return tensors, packed["param_groups"]


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: Any) -> None:
    """The way back from `pack_optimizer`, into an optimizer of the same settings; the learning rate may be another.

    Raises:
        PartitaError: the state is of an optimizer of other parameters or settings.
    """
    own = optimizer.state_dict()["param_groups"]
    difference = _changed(own, groups)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = set(map(str, range(len(parameters))))
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if index not in indices:
            difference = difference or f"{shown(name)} is of none of the {len(parameters)} parameters"
            break
        state.setdefault(int(index), {})[key] = tensor.to(parameters[int(index)].dtype)
    for index, entries in state.items():
        like = tuple(parameters[index].shape)
        shapes = {key: tuple(tensor.shape) for key, tensor in sorted(entries.items())}
        wanted = {"exp_avg": like, "exp_avg_sq": like, "step": ()}
        difference = difference or first_difference(shapes, wanted, str(index))
    if difference:
        raise PartitaError(f"the checkpoint is of another optimizer: {shorten(difference)}")
    for index, entries in state.items():
        check_finite({f"{index}.{key}": tensor for key, tensor in entries.items()}, "the state of the optimizer")
    optimizer.load_state_dict({"state": state, "param_groups": own})


def _changed(own: list[dict[str, Any]], groups: Any) -> str:
    """What the groups of a checkpoint say otherwise than an optimizer's own; empty where they agree."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups) or len(groups) != len(own):
        return f"{shown(groups)} is for {len(own)} groups of parameters"
    for theirs, ours in zip(groups, own):
        # The learning rate is set before each step; settings come and go with versions of torch.
        known = {name: value for name, value in ours.items() if name in theirs and name != "lr"}
        known = json.loads(json.dumps(known))  # tuples are lists there
        found = first_difference({name: theirs[name] for name in known}, known)
        if found:
            return found
    return ""
