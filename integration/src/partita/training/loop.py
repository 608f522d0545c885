"""The steps of a run, on accelerate, for every objective.

A step is a function of (seed, process, step): torch is seeded anew before every phase, data comes by its number, and
schedules read the state. So a resumed run goes on as if it had never stopped, and nothing random is saved.
"""

import math
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import Frozen, PartitaError, hashed_seed
from torch import Tensor, nn
from tqdm import tqdm

from partita.data import changed_file, move_batch
from partita.distributed import (
    StepDecision,
    broadcast_from_main,
    broadcast_stop,
    gather_objects,
    mean_over_processes,
    merge_skipped_files,
)
from partita.objectives.objective import Objective, TrainState

from .alarms import Watch
from .checkpoints import Facts, load_checkpoint, save_checkpoint
from .finish import hours_of
from .interruption import Interrupted, Signals
from .logs import Log, Progress
from .nonfinite_guard import Guard, NonFiniteError
from .optimization import EMA, kept_rates
from .run import RunConfig, RunFolder
from .time_budget import Clock
from .validation import Periodic

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset, IterableDataset


class Loop:
    """Objective, optimizers and averages of a run, prepared, and the steps they take."""

    def __init__(
        self,
        accelerator: "Accelerator",
        objective: Objective,
        config: RunConfig,
        run: RunFolder,
        *,
        data: str,
        contents: Mapping[str, str],
    ) -> None:
        self.accelerator, self.objective, self.config, self.run = accelerator, objective, config, run
        trainer = config.trainer
        self.optimizers: dict[str, Any] = {}
        objective.to(accelerator.device)
        for phase in objective.phases:
            groups = [group for group in objective.parameter_groups(phase) if group["params"]]
            if not groups:
                continue
            if phase not in trainer.optimizers:
                raise PartitaError(f"trainer.optimizers has no entry for the phase {phase!r}")
            self.optimizers[phase] = accelerator.prepare(trainer.optimizers[phase].build(groups))
        # DDP refuses a module without parameters that need gradients.
        trained = any(parameter.requires_grad for parameter in objective.parameters())
        self.prepared: nn.Module = accelerator.prepare(objective) if trained else objective
        self.ema = None if trainer.ema_decay is None else EMA(objective.model, trainer.ema_decay)
        self.guard = Guard(accelerator, objective, trainer, run)
        self.positions: tuple[Any, ...] = ()  # of a checkpoint, for each process
        self.watch = Watch(trainer.watch)
        self.stop = ""  # why the run is to end
        self.started = ""  # what was done before the first step
        self.data = data  # what the files are called by, all in all; empty where nobody knows
        self.contents = dict(contents)  # digests of some of them, by name
        self.broken: dict[str, tuple[str, int]] = {}  # files that this process left out: the first reason, how often

    def close(self) -> None:
        """Free the DDP wrapper of the objective, to be called before the process group is destroyed.

        Its reducer holds the group. If the last reference to a gloo group is dropped by Python, its destructor joins
        threads that may be waiting for the GIL, and the process hangs now and then.
        """
        self.prepared = self.objective
        self.accelerator.free_memory()

    def restore(self, checkpoint: Path, minutes: float | None = None) -> tuple[TrainState, float]:
        """Where the run stood, and the seconds that it had taken.

        With another number of steps than before, or a time limit, schedules go on from where they were.
        """
        optimizers = self._plain_optimizers()
        state, facts = load_checkpoint(checkpoint, objective=self.objective, optimizers=optimizers, ema=self.ema)
        if list(facts.frozen) != self._frozen():
            raise PartitaError(f"{self.run.path} was started on another codec than {self.config.codec} is now")
        self.guard.row, self.watch = facts.skipped, Watch(self.config.trainer.watch, facts.averages)
        self.positions = facts.positions
        self.broken = dict(facts.broken) if self.accelerator.is_main_process else {}
        if facts.data and self.data and facts.data != self.data:
            raise PartitaError(f"{self.run.path} was started on other files; give it the same data, unchanged")
        if changed := changed_file(facts.contents, self.contents):
            raise PartitaError(
                f"{self.run.path} was started on other files: {changed} has other contents now; put it back as it was"
            )
        self.contents = facts.contents | self.contents
        steps, planned = self.config.trainer.steps, state.total_steps
        if minutes is not None:
            state.go_on(planned)
        elif steps != planned:
            state.go_on(steps)
            optimizers = {phase: self.config.trainer.optimizers[phase] for phase in self.optimizers}
            if self.accelerator.is_main_process and (told := kept_rates(optimizers, state, planned)):
                print(told, file=sys.stderr)
        return state, facts.seconds

    def begin(self, batches: Iterable[Any], dataset: "Dataset | IterableDataset", *, progress: bool) -> None:
        """Prepare the objective with data before the first step, as if it were in one process."""
        if type(self.objective).begin is Objective.begin:
            return
        hours = None if self.config.data.streaming else hours_of(dataset)  # pyright: ignore[reportArgumentType]
        torch.manual_seed(hashed_seed(self.config.trainer.seed, "begin"))
        shown = progress and self.accelerator.is_main_process

        def counted() -> Iterable[Any]:  # nothing is read or shown unless the objective asks
            for batch in tqdm(batches, desc="starting", unit="batch", disable=not shown, leave=False):
                yield move_batch(batch, self.accelerator.device)

        self.started = self.objective.begin(counted(), seconds=None if hours is None else 3600 * hours)
        if shown:
            tqdm.write(self.started)
        if self.ema is not None:
            self.ema = EMA(self.objective.model, self.ema.decay)

    def train(
        self,
        batches: Iterable[Any],
        state: TrainState,
        *,
        minutes: float | None,
        elapsed: float,
        checkpoint_every: int | None,
        checkpoint_minutes: float | None,
        keep: int,
        periodic: Periodic | None,
        progress: bool,
    ) -> float:
        """Takes the steps, and returns the seconds of training, those before a resumption included.

        Raises:
            Interrupted: SIGINT or SIGTERM has come, and a checkpoint is written.
        """
        trainer, main = self.config.trainer, self.accelerator.is_main_process
        log = Log(self.run.log, step=state.step, trackers=self.accelerator.trackers) if main else None
        if log is not None and self.started:
            log.write(state.step, start=self.started)
        bar = Progress(state.total_steps, start=state.step, shown=progress and main)
        times = {"first_step": state.step, "steps": trainer.steps, "checkpoint_minutes": checkpoint_minutes}
        clock = Clock(elapsed, minutes, **times)
        reader = iter(batches)
        self.prepared.train()
        held = ExitStack()
        try:
            last = broadcast_stop(self.accelerator, StepDecision(clock.over(state), state.total_steps)).last
            if log is not None and periodic is not None and periodic.missed(state, last, log):
                with clock.paused():
                    periodic.evaluate(state, log)
            signals = held.enter_context(Signals())  # before the first step there is nothing to lose
            while not last and not self.stop:
                figures, waited = self._try_step(reader, state, bar, log)
                state.step += 1
                ending, asked = signals.take()
                mine = StepDecision(clock.over(state), clock.total_steps(state), asked or clock.save_due(), ending)
                last, state.total_steps, save, ending = broadcast_stop(self.accelerator, mine)
                if self.ema is not None and figures:
                    self.ema.update(self.objective.model, state.step)
                if figures and (state.step % trainer.log_every == 0 or last):
                    values = mean_over_processes(self.accelerator, figures)
                    if log is not None:
                        values = log.finite(state.step, values)
                        bar.update(state.step, state.total_steps, {"loss": values["total"]})
                        log.write(state.step, seconds=round(clock.elapsed, 3), waited=round(waited, 4), **values)
                        self._warn(values, state, log)
                    self.stop = broadcast_from_main(self.accelerator, self.stop)
                if last or save or ending or (checkpoint_every and state.step % checkpoint_every == 0):
                    path = self._checkpoint(state, clock.elapsed, keep, getattr(batches, "positions", ()))
                    clock.saved()
                    if ending:
                        stands = f"interrupted after step {state.step} of {state.total_steps}; {path} is written"
                        resume = "give the command again with --resume, and the run goes on from there"
                        raise Interrupted(f"{stands}: {resume}" if main else "", ending)
                if periodic is not None and periodic.due(state, last):
                    with clock.paused():
                        periodic.evaluate(state, log)
            if self.stop:
                raise PartitaError(self.stop)
            self.broken = merge_skipped_files(self.accelerator, self.broken)
        finally:
            held.close()
            bar.close()
            if log is not None and self.broken:
                log.write(state.step, broken=dict(self.broken.values()))
            if main and self.broken:
                lines = "".join(f"\n  {reason}" for reason, _ in sorted(self.broken.values()))
                print(f"{len(self.broken)} files could not be used and were left out:{lines}", flush=True)
        return clock.elapsed

    def _try_step(
        self, reader: Any, state: TrainState, bar: Progress, log: Log | None
    ) -> tuple[dict[str, Tensor], float]:
        """One optimizer step, or none where it is not finite and the run goes on: there are no figures then."""
        try:
            found = self._step(reader, state, bar)
        except NonFiniteError as error:
            goes_on = self.guard.goes_on()
            if log is not None and goes_on:
                log.warn(state.step + 1, f"step {state.step + 1}", str(error))
            elif log is not None:
                log.write(state.step + 1, warning=str(error))
            if not goes_on:
                raise
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()  # else it would complain of gradients that no step was taken with
            return {}, 0.0
        self.guard.end()
        return found

    def _step(self, reader: Any, state: TrainState, bar: Progress) -> tuple[dict[str, Tensor], float]:
        """One optimizer step: every phase of every micro-batch inside one `accumulate`."""
        trainer, accelerator = self.config.trainer, self.accelerator
        figures: dict[str, Tensor] = {}
        waited = 0.0
        self.guard.begin()
        for phase, optimizer in self.optimizers.items():
            lr = trainer.optimizers[phase].lr_at(state)
            for group in optimizer.param_groups:
                group["lr"] = lr
            figures[f"lr/{phase}"] = torch.tensor(lr)
        for micro in range(trainer.accumulation):
            begin = time.perf_counter()
            batch = next(reader)
            waited += time.perf_counter() - begin
            for found in batch.pop("broken", []):
                if found.file not in self.broken:
                    bar.say(f"left out: {found}")
                reason, count = self.broken.get(found.file, (str(found), 0))
                self.broken[found.file] = reason, count + 1
            self.objective.check_batch(batch)
            batch = move_batch(batch, accelerator.device)
            with accelerator.accumulate(self.prepared):
                for phase in self.objective.phases:
                    torch.manual_seed(hashed_seed(trainer.seed, accelerator.process_index, state.step, micro, phase))
                    output = self.prepared(batch, state, phase)
                    self.guard.note(micro, phase, batch, output.total, output.losses)
                    optimizer = self.optimizers.get(phase)
                    norm = None
                    if optimizer is not None:
                        accelerator.backward(output.total)
                        norm = self._clip(phase)
                    if norm is not None:
                        figures[f"gradient/{phase}"] = norm
                    if accelerator.sync_gradients:
                        self.guard.look(state, phase, norm)
                    if optimizer is not None:
                        optimizer.step()
                        optimizer.zero_grad()
                    batch["samples"] = output.samples
                    losses = {f"loss/{name}": value for name, value in output.losses.items()}
                    if phase == self.objective.phases[0]:
                        losses["total"] = output.total.detach()
                    for name, value in losses.items():
                        figures[name] = figures.get(name, 0) + value / trainer.accumulation
                    figures |= {f"metric/{name}": value for name, value in output.metrics.items()}
        return figures, waited

    def _clip(self, phase: str) -> Tensor | None:
        if not self.accelerator.sync_gradients:
            return None
        limit = self.config.trainer.optimizers[phase].clip
        parameters = [p for group in self.optimizers[phase].param_groups for p in group["params"]]
        return self.accelerator.clip_grad_norm_(parameters, math.inf if limit is None else limit)

    def _warn(self, values: Mapping[str, float], state: TrainState, log: Log) -> None:
        """Says what the figures of the log show to be wrong."""
        for alarm in self.watch.look(state.step, values):
            if alarm.stops:
                self.stop = f"step {state.step}: {alarm.text}"
                log.write(state.step, warning=self.stop)
            else:
                log.warn(state.step, alarm.kind, f"step {state.step}: {alarm.text}")

    def place(self) -> Any:
        """Where the streams of this process stand, if the run is resumed and its data is a stream.

        Raises:
            PartitaError: it was left by another number of processes.
        """
        count = self.accelerator.num_processes
        if self.positions and len(self.positions) != count:
            raise PartitaError(
                f"the run was left by {len(self.positions)} processes, and {count} are to go on; a stream needs as many"
            )
        return self.positions[self.accelerator.process_index] if self.positions else None

    def _checkpoint(self, state: TrainState, seconds: float, keep: int, positions: tuple[Any, ...]) -> Path | None:
        """Write a checkpoint, in the main process; returns its folder there."""
        everyone = gather_objects(self.accelerator, [positions] if positions else [])
        broken = merge_skipped_files(self.accelerator, self.broken)
        if not self.accelerator.is_main_process:
            return None
        facts = Facts(
            seconds,
            frozen=tuple(self._frozen()),
            skipped=self.guard.row,
            averages=self.watch.averages,
            positions=tuple(everyone),
            broken=broken,
            data=self.data,
            contents=self.contents,
        )
        return save_checkpoint(
            self.run,
            objective=self.objective,
            optimizers=self._plain_optimizers(),
            ema=self.ema,
            state=state,
            facts=facts,
            keep=keep,
        )

    def _frozen(self) -> list[str]:
        return [module.sha256 for module in self.objective.modules() if isinstance(module, Frozen)]

    def _plain_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {phase: optimizer.optimizer for phase, optimizer in self.optimizers.items()}
