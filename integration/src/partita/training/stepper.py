"""One optimizer step on accelerate: all phases of all micro-batches, clipping, and the guard of non-finite values."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from partita_core import PartitaError, hashed_seed
from torch import Tensor, nn
from tqdm import tqdm

from partita.data import move_batch
from partita.objectives.objective import Objective, TrainState

from .nonfinite_guard import Guard
from .run import RunConfig, RunFolder

if TYPE_CHECKING:
    from accelerate import Accelerator


class Stepper:
    """The prepared objective and optimizers of a run, and the step that updates them.

    Attributes:
        optimizers: prepared optimizers by phase.
        guard: guard of non-finite values.
        skipped_files: first reason and count by name of the files that this process could not use.
    """

    def __init__(
        self, accelerator: "Accelerator", objective: Objective, config: RunConfig, run: RunFolder, *, quiet: bool
    ) -> None:
        """Prepare the objective and its optimizers; `quiet` leaves skipped files unprinted.

        Raises:
            PartitaError: a phase has no optimizer.
        """
        self._accelerator, self._objective, self._trainer, self._quiet = accelerator, objective, config.trainer, quiet
        self.optimizers: dict[str, Any] = {}
        objective.to(accelerator.device)
        for phase in objective.phases:
            groups = [group for group in objective.parameter_groups(phase) if group["params"]]
            if not groups:
                continue
            if phase not in self._trainer.optimizers:
                raise PartitaError(f"trainer.optimizers has no entry for the phase {phase!r}; add one")
            self.optimizers[phase] = accelerator.prepare(self._trainer.optimizers[phase].build(groups=groups))
        # DistributedDataParallel rejects a module without trainable parameters.
        trained = any(parameter.requires_grad for parameter in objective.parameters())
        self._prepared: nn.Module = accelerator.prepare(objective) if trained else objective
        self._prepared.train()
        self.guard = Guard(accelerator, objective, self._trainer, run)
        self.skipped_files: dict[str, tuple[str, int]] = {}

    def step(self, reader: Any, state: TrainState) -> tuple[dict[str, Tensor], float]:
        """Take one step; returns its scalar values by their names in the log, and the seconds spent waiting for data.

        Raises:
            NonFiniteError: a loss or a gradient is not finite, and the step was not taken.
        """
        trainer, accelerator = self._trainer, self._accelerator
        self.guard.start_step()
        phases = self._objective.phases_at(state)
        values = self._set_learning_rates(state, phases)
        waited = 0.0
        for micro in range(trainer.accumulation):
            batch, seconds = self._next_batch(reader)
            waited += seconds
            # All phases inside one `accumulate`: it counts micro-batches, and a second one would never synchronize.
            with accelerator.accumulate(self._prepared):
                for phase in phases:
                    torch.manual_seed(hashed_seed(trainer.seed, accelerator.process_index, state.step, micro, phase))
                    output = self._prepared(batch, state, phase)
                    self.guard.record(micro, phase, batch, output.total, output.losses)
                    optimizer, norm = self.optimizers.get(phase), None
                    if optimizer is not None:
                        accelerator.backward(output.total)
                        norm = self._clip(phase)
                    if accelerator.sync_gradients:
                        self.guard.check(state, phase, norm)
                    if optimizer is not None:
                        optimizer.step()
                        optimizer.zero_grad()
                    batch["samples"] = output.samples  # for the discriminator
                    losses = {f"loss/{name}": value for name, value in output.losses.items()}
                    if phase == phases[0]:
                        losses["total"] = output.total.detach()
                    for name, value in losses.items():
                        values[name] = values.get(name, 0) + value / trainer.accumulation
                    values |= {f"metric/{name}": value for name, value in output.metrics.items()}
                    values |= {} if norm is None else {f"gradient/{phase}": norm}
        self.guard.finish_step()
        return values, waited

    def to_device(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with its tensors on the device."""
        return move_batch(batch, self._accelerator.device)

    def close(self) -> None:
        """Free the DDP wrapper of the objective, which must happen before the process group is destroyed.

        Its reducer holds the group. If Python drops the last reference to a gloo group, the destructor joins threads
        that may wait for the GIL, and the process hangs now and then.
        """
        self._prepared = self._objective
        self._accelerator.free_memory()

    def plain_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by phase, without the wrappers of accelerate."""
        return {phase: optimizer.optimizer for phase, optimizer in self.optimizers.items()}

    def _set_learning_rates(self, state: TrainState, phases: Iterable[str]) -> dict[str, Tensor]:
        """Set the learning rates of the phases of a step, and return them by their names in the log."""
        rates = {phase: self._trainer.optimizers[phase].lr_at(state) for phase in phases if phase in self.optimizers}
        for phase, rate in rates.items():
            for group in self.optimizers[phase].param_groups:
                group["lr"] = rate
        return {f"lr/{phase}": torch.tensor(rate) for phase, rate in rates.items()}

    def _next_batch(self, reader: Any) -> tuple[dict[str, Any], float]:
        """The next micro-batch on the device, and the seconds spent waiting for it."""
        start = time.perf_counter()
        batch = next(reader)
        waited = time.perf_counter() - start
        for skipped in batch.pop("broken", []):
            if skipped.file not in self.skipped_files and not self._quiet:
                tqdm.write(f"skipped: {skipped}")
            reason, count = self.skipped_files.get(skipped.file, (str(skipped), 0))
            self.skipped_files[skipped.file] = reason, count + 1
        self._objective.check_batch(batch)
        return self.to_device(batch), waited

    def _clip(self, phase: str) -> Tensor | None:
        """Clip the gradients of a phase in the last micro-batch of a step, and return their norm."""
        if not self._accelerator.sync_gradients:
            return None
        limit = self._trainer.optimizers[phase].clip
        parameters = [p for group in self.optimizers[phase].param_groups for p in group["params"]]
        return self._accelerator.clip_grad_norm_(parameters, math.inf if limit is None else limit)
