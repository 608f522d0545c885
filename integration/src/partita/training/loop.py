"""Training loop: steps, log, checkpoints, evaluations and signals of a run.

A step is a function of (seed, process, step): torch is seeded before every phase, batches come by number, and schedules
depend on the state. So a resumed run continues as if it had never stopped, and no random state is saved.
"""

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import Frozen, PartitaError, hashed_seed
from torch import Tensor
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
from .nonfinite_guard import NonFiniteError
from .optimizers import describe_continued_rates
from .run import RunConfig, RunFolder
from .run_data import DataFingerprint
from .run_log import RunLog
from .statistics import audio_hours
from .stepper import Stepper
from .time_budget import TimeBudget
from .validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class LoopOptions:
    """Limits, checkpoints and observers of a run, which do not affect what is learned; see `train`."""

    minutes: float | None
    cpu_minutes: float | None
    checkpoint_every: int | None
    checkpoint_minutes: float | None
    keep: int
    progress: bool
    callbacks: tuple[Callback, ...]


class Loop:
    """The steps of a run, and everything that happens between them."""

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
        main, trainer = accelerator.is_main_process, config.trainer
        self.accelerator, self.objective, self.config, self.run = accelerator, objective, config, run
        self.options, self.callbacks = options, options.callbacks if main else ()
        self.stepper = Stepper(accelerator, objective, config, run, quiet=not (options.progress and main))
        self.ema = None if trainer.ema_decay is None else EMA(objective.model, trainer.ema_decay)
        self.alarms = MetricAlarms(trainer.alarms, loss_at_chance=objective.loss_at_chance)
        self.data = data
        self.positions: tuple[Any, ...] = ()  # positions in the streams of each process, from a checkpoint
        self.initialization = ""  # line on what was initialized from data
        self.precision = ""  # for the log, if it was chosen for the machine
        self.stop_reason = ""  # alarm that ends the run
        self.cpu_elapsed = 0.0  # processor seconds of training before a resumption
        self.callback_error: OSError | None = None
        self.log: RunLog | None = None

    def restore(self, checkpoint: Path) -> tuple[TrainState, float]:
        """Load a checkpoint, and return the state and the seconds of training.

        With another number of steps than before, or a time limit, schedules continue from where they were.

        Raises:
            PartitaError: the checkpoint is damaged, or codec or data have changed.
        """
        optimizers = self.stepper.plain_optimizers()
        state, metadata = load_checkpoint(checkpoint, objective=self.objective, optimizers=optimizers, ema=self.ema)
        if list(metadata.frozen) != self._frozen_hashes():
            raise PartitaError(f"{self.run.path} was started with another codec than {self.config.codec}; use that one")
        metadata.data.check_same(self.data, self.run.path)
        self.data = metadata.data.merged(self.data)
        self.stepper.guard.consecutive_skips = metadata.consecutive_skips
        self.alarms = MetricAlarms(
            self.config.trainer.alarms, metadata.averages, loss_at_chance=self.objective.loss_at_chance
        )
        self.positions = metadata.positions
        if self.accelerator.is_main_process:
            self.stepper.skipped_files = dict(metadata.skipped_files)
        self.cpu_elapsed = metadata.cpu_seconds
        steps, planned = self.config.trainer.steps, state.total_steps
        if self.options.minutes is not None or self.options.cpu_minutes is not None:
            state.extend(planned)
        elif steps != planned:
            state.extend(steps)
            configs = {phase: self.config.trainer.optimizers[phase] for phase in optimizers}
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
        streamed = self.config.data.streaming
        hours = None if streamed else audio_hours(dataset)  # pyright: ignore[reportArgumentType]
        torch.manual_seed(hashed_seed(self.config.trainer.seed, "begin"))
        shown = self.options.progress and self.accelerator.is_main_process

        def moved() -> Iterable[Any]:  # a generator, so that nothing is read or shown unless the objective asks
            for batch in tqdm(batches, desc="initializing", unit="batch", disable=not shown, leave=False):
                yield self.stepper.to_device(batch)

        self.initialization = self.objective.initialize(moved(), seconds=None if hours is None else 3600 * hours)
        if shown and self.initialization:
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
        if main:
            split = None if validator is None else validator.split
            settings = {"split": split, "shown": options.progress, "trackers": self.accelerator.trackers}
            self.log = RunLog(self.run.log, state, self.alarms, **settings)
            if self.precision and not any("precision" in line for line in self.log.kept):
                self.log.write(state.step, precision=self.precision)
            if self.initialization:
                self.log.write(state.step, start=self.initialization)
        budget = TimeBudget(
            elapsed,
            options.minutes,
            first_step=state.step,
            steps=trainer.steps,
            checkpoint_minutes=options.checkpoint_minutes,
            cpu_elapsed=self.cpu_elapsed,
            cpu_minutes=options.cpu_minutes,
        )
        reader = iter(batches)
        stack = ExitStack()
        try:
            last = broadcast_stop(self.accelerator, StepDecision(budget.is_over(state), state.total_steps)).last
            if self.log is not None and validator is not None and validator.overdue(state, last, self.log):
                self._validate(validator, state, budget)
            signals = stack.enter_context(Signals())  # before the first step there is nothing to lose
            while not last and not self.stop_reason:
                if self.log is not None:
                    self.log.enter_stage(state, self.objective.stage(state))
                values, waited = self._try_step(reader, state)
                state.step += 1
                ending, requested = signals.take()
                save = requested or budget.checkpoint_due()
                mine = StepDecision(budget.is_over(state), budget.total_steps(state), save, ending)
                last, state.total_steps, save, ending = broadcast_stop(self.accelerator, mine)
                if self.ema is not None and values:
                    self.ema.update(self.objective.model, state.step)
                if values and (state.step % trainer.log_every == 0 or last):
                    times = {"seconds": budget.elapsed, "cpu_seconds": budget.cpu_elapsed, "waited": waited}
                    self._log_step(values, state, times)
                self._notify("on_step", state, values)
                if last or save or ending or (options.checkpoint_every and state.step % options.checkpoint_every == 0):
                    path = self._checkpoint(state, budget, getattr(batches, "positions", ()))
                    if ending:
                        stopped = f"interrupted after step {state.step} of {state.total_steps}; {path} is written"
                        resume = "repeat the command with --resume to continue from there"
                        raise Interrupted(f"{stopped}; {resume}" if main else "", ending)
                if validator is not None and validator.due(state, last):
                    self._validate(validator, state, budget)
            if self.stop_reason:
                raise PartitaError(self.stop_reason)
            self.stepper.skipped_files = merge_skipped_files(self.accelerator, self.stepper.skipped_files)
        finally:
            stack.close()
            if self.log is not None:
                self.log.close()
            self._report_skipped_files(state)
        return budget.elapsed

    def stream_position(self) -> Any:
        """Positions in the streams of this process, if a run on streamed data is resumed; None otherwise.

        Raises:
            PartitaError: the run had another number of processes.
        """
        count = self.accelerator.num_processes
        if self.positions and len(self.positions) != count:
            raise PartitaError(
                f"the run had {len(self.positions)} processes and now has {count}; resume a stream with the same number"
            )
        return self.positions[self.accelerator.process_index] if self.positions else None

    def _try_step(self, reader: Any, state: TrainState) -> tuple[dict[str, Tensor], float]:
        """One optimizer step, or no values if it is not finite and is skipped."""
        try:
            return self.stepper.step(reader, state)
        except NonFiniteError as error:
            skip = self.stepper.guard.should_continue()
            if self.log is not None and skip:
                self.log.warn(state.step + 1, f"step {state.step + 1}", str(error))
            elif self.log is not None:
                self.log.write(state.step + 1, warning=str(error))
            if not skip:
                raise
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()  # otherwise GradScaler raises: gradients were unscaled, never stepped
            return {}, 0.0

    def _log_step(self, values: Mapping[str, Tensor], state: TrainState, times: Mapping[str, float]) -> None:
        """Write a line of the log, with means over processes, and stop if an alarm requires it."""
        means = mean_over_processes(self.accelerator, values)
        if self.log is not None:
            self.log.write_step(state, means, times)
        self.stop_reason = broadcast_from_main(self.accelerator, "" if self.log is None else self.log.stop_reason)

    def _validate(self, validator: Validator, state: TrainState, budget: TimeBudget) -> None:
        """Evaluate in the main process; the time does not count."""
        with budget.paused():
            metrics = {each.name: each.value for each in validator.validate(state)}
            if self.log is not None and metrics:
                self.log.write_validation(state, metrics)
            self._notify("on_validation", state, metrics)

    def _checkpoint(self, state: TrainState, budget: TimeBudget, positions: tuple[Any, ...]) -> Path | None:
        """Write a checkpoint in the main process; returns its folder there."""
        everyone = gather_objects(self.accelerator, [positions] if positions else [])
        skipped_files = merge_skipped_files(self.accelerator, self.stepper.skipped_files)
        path = None
        if self.accelerator.is_main_process:
            metadata = CheckpointMetadata(
                budget.elapsed,
                budget.cpu_elapsed,
                frozen=tuple(self._frozen_hashes()),
                consecutive_skips=self.stepper.guard.consecutive_skips,
                averages=self.alarms.averages,
                positions=tuple(everyone),
                skipped_files=skipped_files,
                data=self.data,
            )
            path = save_checkpoint(
                self.run,
                objective=self.objective,
                optimizers=self.stepper.plain_optimizers(),
                ema=self.ema,
                state=state,
                metadata=metadata,
                keep=self.options.keep,
            )
            self._notify("on_checkpoint", path)
        budget.checkpoint_written()
        return path

    def _notify(self, method: str, *arguments: Any) -> None:
        """Call a method of every callback."""
        for callback in self.callbacks:
            try:
                getattr(callback, method)(*arguments)
            except OSError as error:  # kept apart from errors on the files of the run
                self.callback_error = error
                raise

    def _report_skipped_files(self, state: TrainState) -> None:
        """Log and print the files that could not be used."""
        files = self.stepper.skipped_files
        if self.log is None or not files:
            return
        self.log.write(state.step, broken=dict(files.values()))
        lines = "".join(f"\n  {reason}" for reason, _ in sorted(files.values()))
        print(f"{len(files)} files could not be used and were skipped:{lines}", flush=True)

    def _frozen_hashes(self) -> list[str]:
        return [module.sha256 for module in self.objective.modules() if isinstance(module, Frozen)]
