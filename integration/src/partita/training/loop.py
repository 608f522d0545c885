"""Training loop: the steps of a run on accelerate, for every objective.

A step is a function of (seed, process, step): torch is seeded before every phase, batches come by number, and schedules
depend on the state. So a resumed run continues as if it had never stopped, and no random state is saved.
"""

import math
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import Frozen, PartitaError, hashed_seed
from torch import Tensor, nn
from tqdm import tqdm

from partita.distributed import (
    StepDecision,
    broadcast_from_main,
    broadcast_stop,
    gather_objects,
    mean_over_processes,
    merge_skipped_files,
)
from partita.objectives.objective import Objective, TrainState

from .alarms import MetricAlarms
from .callbacks import Callback
from .checkpoints import CheckpointMetadata, load_checkpoint, save_checkpoint
from .ema import EMA
from .interruption import Interrupted, Signals
from .logs import Log, Progress
from .nonfinite_guard import Guard, NonFiniteError
from .optimizers import describe_continued_rates
from .run import RunConfig, RunFolder
from .run_data import DataFingerprint
from .statistics import audio_hours
from .time_budget import TimeBudget
from .validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class LoopOptions:
    """Limits, checkpoints and observers of a run, which do not affect what is learned; see `train`."""

    minutes: float | None
    checkpoint_every: int | None
    checkpoint_minutes: float | None
    keep: int
    progress: bool
    callbacks: tuple[Callback, ...]


class Loop:
    """The prepared objective, optimizers and averaged weights of a run, and the steps that update them."""

    def __init__(
        self,
        accelerator: "Accelerator",
        objective: Objective,
        config: RunConfig,
        run: RunFolder,
        options: LoopOptions,
        data: DataFingerprint,
    ) -> None:
        """Prepare the objective and its optimizers.

        Raises:
            PartitaError: a phase has no optimizer.
        """
        self.accelerator, self.objective, self.config, self.run = accelerator, objective, config, run
        trainer = config.trainer
        self.optimizers: dict[str, Any] = {}
        objective.to(accelerator.device)
        for phase in objective.phases:
            groups = [group for group in objective.parameter_groups(phase) if group["params"]]
            if not groups:
                continue
            if phase not in trainer.optimizers:
                raise PartitaError(f"trainer.optimizers has no entry for the phase {phase!r}; add one")
            self.optimizers[phase] = accelerator.prepare(trainer.optimizers[phase].build(groups=groups))
        # DistributedDataParallel rejects a module without trainable parameters.
        trained = any(parameter.requires_grad for parameter in objective.parameters())
        self.prepared: nn.Module = accelerator.prepare(objective) if trained else objective
        self.ema = None if trainer.ema_decay is None else EMA(objective.model, trainer.ema_decay)
        self.guard = Guard(accelerator, objective, trainer, run)
        self.alarms = MetricAlarms(trainer.alarms)
        self.options, self.callbacks = options, options.callbacks if accelerator.is_main_process else ()
        self.data = data
        self.places: tuple[Any, ...] = ()  # positions in the streams of each process, from a checkpoint
        self.skipped_files: dict[str, tuple[str, int]] = {}  # first reason and count by name, of this process
        self.initialization = ""  # line on what was initialized from data
        self.stop_reason = ""  # alarm that ends the run
        self.log: Log | None = None
        self.bar = Progress(trainer.steps, start=0, shown=False)

    def restore(self, checkpoint: Path) -> tuple[TrainState, float]:
        """Load a checkpoint, and return the state and the seconds of training.

        With another number of steps than before, or a time limit, schedules continue from where they were.

        Raises:
            PartitaError: the checkpoint is damaged, or codec or data have changed.
        """
        optimizers = self._plain_optimizers()
        state, metadata = load_checkpoint(checkpoint, objective=self.objective, optimizers=optimizers, ema=self.ema)
        if list(metadata.frozen) != self._frozen_hashes():
            raise PartitaError(f"{self.run.path} was started on another codec than {self.config.codec} is now")
        metadata.data.check_same(self.data, self.run.path)
        self.data = metadata.data.merged(self.data)
        self.guard.consecutive_skips = metadata.consecutive_skips
        self.alarms = MetricAlarms(self.config.trainer.alarms, metadata.averages)
        self.places = metadata.places
        self.skipped_files = dict(metadata.skipped_files) if self.accelerator.is_main_process else {}
        steps, planned = self.config.trainer.steps, state.total_steps
        if self.options.minutes is not None:
            state.extend(planned)
        elif steps != planned:
            state.extend(steps)
            configs = {phase: self.config.trainer.optimizers[phase] for phase in self.optimizers}
            if self.accelerator.is_main_process and (line := describe_continued_rates(configs, state, planned)):
                print(line, file=sys.stderr)
        return state, metadata.seconds

    def initialize(self, batches: Iterable[Any], dataset: "Dataset | IterableDataset") -> None:
        """Initialize the objective from data before the first step of a new run, the same in every process.

        Args:
            batches: batches as a single process would read them.
            dataset: training data.
        """
        if type(self.objective).initialize is Objective.initialize:
            return
        streamed = self.config.data.stream is not None
        hours = None if streamed else audio_hours(dataset)  # pyright: ignore[reportArgumentType]
        torch.manual_seed(hashed_seed(self.config.trainer.seed, "begin"))
        shown = self.options.progress and self.accelerator.is_main_process

        def moved() -> Iterable[Any]:  # a generator, so that nothing is read or shown unless the objective asks
            for batch in tqdm(batches, desc="initializing", unit="batch", disable=not shown, leave=False):
                yield _to(batch, self.accelerator.device)

        self.initialization = self.objective.initialize(moved(), seconds=None if hours is None else 3600 * hours)
        if shown:
            tqdm.write(self.initialization)
        if self.ema is not None:
            self.ema = EMA(self.objective.model, self.ema.decay)

    def train(self, batches: Iterable[Any], state: TrainState, elapsed: float, validator: Validator | None) -> float:
        """Take the steps, and return the seconds of training, including those before a resumption.

        Args:
            batches: batches of this process, without end.
            state: progress of the run, which is updated.
            elapsed: seconds of training before a resumption.
            validator: evaluation during the run, in the main process.

        Raises:
            Interrupted: SIGINT or SIGTERM was received, and a checkpoint is written.
            PartitaError: an alarm stops the run, or no file can be read.
        """
        trainer, options, main = self.config.trainer, self.options, self.accelerator.is_main_process
        self.log = Log(self.run.log, step=state.step, trackers=self.accelerator.trackers) if main else None
        if self.log is not None and self.initialization:
            self.log.write(state.step, start=self.initialization)
        self.bar = Progress(state.total_steps, start=state.step, shown=options.progress and main)
        budget = TimeBudget(
            elapsed,
            options.minutes,
            first_step=state.step,
            steps=trainer.steps,
            checkpoint_minutes=options.checkpoint_minutes,
        )
        reader = iter(batches)
        self.prepared.train()
        stack = ExitStack()
        try:
            last = broadcast_stop(self.accelerator, StepDecision(budget.is_over(state), state.total_steps)).last
            if self.log is not None and validator is not None and validator.overdue(state, last, self.log):
                self._validate(validator, state, budget)
            signals = stack.enter_context(Signals())  # before the first step there is nothing to lose
            while not last and not self.stop_reason:
                values, waited = self._try_step(reader, state)
                state.step += 1
                ending, requested = signals.take()
                save = requested or budget.checkpoint_due()
                mine = StepDecision(budget.is_over(state), budget.total_steps(state), save, ending)
                last, state.total_steps, save, ending = broadcast_stop(self.accelerator, mine)
                if self.ema is not None and values:
                    self.ema.update(self.objective.model, state.step)
                if values and (state.step % trainer.log_every == 0 or last):
                    self._log_step(values, state, seconds=round(budget.elapsed, 3), waited=round(waited, 4))
                for callback in self.callbacks:
                    callback.on_step(state, values)
                if last or save or ending or (options.checkpoint_every and state.step % options.checkpoint_every == 0):
                    path = self._checkpoint(state, budget, getattr(batches, "places", ()))
                    if ending:
                        stopped = f"interrupted after step {state.step} of {state.total_steps}; {path} is written"
                        resume = "repeat the command with --resume to continue from there"
                        raise Interrupted(f"{stopped}; {resume}" if main else "", ending)
                if validator is not None and validator.due(state, last):
                    self._validate(validator, state, budget)
            if self.stop_reason:
                raise PartitaError(self.stop_reason)
            self.skipped_files = merge_skipped_files(self.accelerator, self.skipped_files)
        finally:
            stack.close()
            self.bar.close()
            self._report_skipped_files(state)
        return budget.elapsed

    def stream_position(self) -> Any:
        """Positions in the streams of this process, if a run on streamed data is resumed; None otherwise.

        Raises:
            PartitaError: the run had another number of processes.
        """
        count = self.accelerator.num_processes
        if self.places and len(self.places) != count:
            raise PartitaError(
                f"the run had {len(self.places)} processes and now has {count}; resume a stream with as many"
            )
        return self.places[self.accelerator.process_index] if self.places else None

    def _try_step(self, reader: Any, state: TrainState) -> tuple[dict[str, Tensor], float]:
        """One optimizer step, or no values if it is not finite and is skipped."""
        try:
            result = self._step(reader, state)
        except NonFiniteError as error:
            skip = self.guard.should_continue()
            if self.log is not None and skip:
                self.log.warn(state.step + 1, f"step {state.step + 1}", str(error))
            elif self.log is not None:
                self.log.write(state.step + 1, warning=str(error))
            if not skip:
                raise
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()  # otherwise GradScaler raises: gradients were unscaled, never stepped
            return {}, 0.0
        self.guard.finish_step()
        return result

    def _step(self, reader: Any, state: TrainState) -> tuple[dict[str, Tensor], float]:
        """One optimizer step: all phases of each micro-batch inside one `accumulate`; returns values and waiting time.

        Calling `accumulate` per phase instead would never synchronize the second one.
        """
        trainer, accelerator = self.config.trainer, self.accelerator
        self.guard.start_step()
        values = self._set_learning_rates(state)
        waited = 0.0
        for micro in range(trainer.accumulation):
            batch, seconds = self._next_batch(reader)
            waited += seconds
            with accelerator.accumulate(self.prepared):
                for phase in self.objective.phases:
                    torch.manual_seed(hashed_seed(trainer.seed, accelerator.process_index, state.step, micro, phase))
                    output = self.prepared(batch, state, phase)
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
                    if phase == self.objective.phases[0]:
                        losses["total"] = output.total.detach()
                    for name, value in losses.items():
                        values[name] = values.get(name, 0) + value / trainer.accumulation
                    values |= {f"metric/{name}": value for name, value in output.metrics.items()}
                    values |= {} if norm is None else {f"gradient/{phase}": norm}
        return values, waited

    def _set_learning_rates(self, state: TrainState) -> dict[str, Tensor]:
        """Set the learning rates of a step, and return them by their names in the log."""
        rates = {phase: self.config.trainer.optimizers[phase].lr_at(state) for phase in self.optimizers}
        for phase, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[phase]
        return {f"lr/{phase}": torch.tensor(rate) for phase, rate in rates.items()}

    def _next_batch(self, reader: Any) -> tuple[dict[str, Any], float]:
        """The next micro-batch on the device, and the seconds spent waiting for it."""
        start = time.perf_counter()
        batch = next(reader)
        waited = time.perf_counter() - start
        for skipped in batch.pop("broken", []):
            if skipped.file not in self.skipped_files:
                self.bar.print(f"skipped: {skipped}")
            reason, count = self.skipped_files.get(skipped.file, (str(skipped), 0))
            self.skipped_files[skipped.file] = reason, count + 1
        self.objective.check_batch(batch)
        return _to(batch, self.accelerator.device), waited

    def _clip(self, phase: str) -> Tensor | None:
        """Clip the gradients of a phase in the last micro-batch of a step, and return their norm."""
        if not self.accelerator.sync_gradients:
            return None
        limit = self.config.trainer.optimizers[phase].clip
        parameters = [p for group in self.optimizers[phase].param_groups for p in group["params"]]
        return self.accelerator.clip_grad_norm_(parameters, math.inf if limit is None else limit)

    def _log_step(self, values: Mapping[str, Tensor], state: TrainState, **times: float) -> None:
        """Write a line of the log, with means over processes, and raise alarms."""
        means = mean_over_processes(self.accelerator, values)
        if self.log is not None:
            means = self.log.finite(state.step, means)
            self.bar.update(state.step, state.total_steps, {"loss": means["total"]})
            self.log.write(state.step, **times, **means)
            for alarm in self.alarms.check(state.step, means):
                text = f"step {state.step}: {alarm.text}"
                if alarm.stops:
                    self.stop_reason = text
                    self.log.write(state.step, warning=text)
                else:
                    self.log.warn(state.step, alarm.kind, text)
        self.stop_reason = broadcast_from_main(self.accelerator, self.stop_reason)

    def _validate(self, validator: Validator, state: TrainState, budget: TimeBudget) -> None:
        """Evaluate in the main process; the time does not count."""
        with budget.paused():
            metrics = {each.name: each.value for each in validator.validate(state)}
            if self.log is not None and metrics:
                self.log.write(state.step, **{f"{validator.split}/{name}": value for name, value in metrics.items()})
            for callback in self.callbacks:
                callback.on_validation(state, metrics)

    def _checkpoint(self, state: TrainState, budget: TimeBudget, places: tuple[Any, ...]) -> Path | None:
        """Write a checkpoint in the main process; returns its folder there."""
        everyone = gather_objects(self.accelerator, [places] if places else [])
        skipped_files = merge_skipped_files(self.accelerator, self.skipped_files)
        path = None
        if self.accelerator.is_main_process:
            metadata = CheckpointMetadata(
                budget.elapsed,
                frozen=tuple(self._frozen_hashes()),
                consecutive_skips=self.guard.consecutive_skips,
                averages=self.alarms.averages,
                places=tuple(everyone),
                skipped_files=skipped_files,
                data=self.data,
            )
            path = save_checkpoint(
                self.run,
                objective=self.objective,
                optimizers=self._plain_optimizers(),
                ema=self.ema,
                state=state,
                metadata=metadata,
                keep=self.options.keep,
            )
            for callback in self.callbacks:
                callback.on_checkpoint(path)
        budget.checkpoint_written()
        return path

    def _report_skipped_files(self, state: TrainState) -> None:
        """Log and print the files that could not be used."""
        if self.log is None or not self.skipped_files:
            return
        self.log.write(state.step, broken=dict(self.skipped_files.values()))
        lines = "".join(f"\n  {reason}" for reason, _ in sorted(self.skipped_files.values()))
        print(f"{len(self.skipped_files)} files could not be used and were skipped:{lines}", flush=True)

    def _frozen_hashes(self) -> list[str]:
        return [module.sha256 for module in self.objective.modules() if isinstance(module, Frozen)]

    def _plain_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {phase: optimizer.optimizer for phase, optimizer in self.optimizers.items()}


def _to(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()
    }
