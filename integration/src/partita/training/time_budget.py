"""Time that a run has taken, its limit, and the number of steps that fit in the rest."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from partita_core import PartitaError

from partita.objectives.objective import TrainState

# Number of steps whose speed is needed to estimate how many fit in a time limit.
_SPEED_STEPS = 10


class _Clock:
    """Seconds by a clock, without pauses, and those before a resumption."""

    def __init__(self, now: Callable[[], float], before: float) -> None:
        self._now, self.before = now, before
        self._start, self._paused = now(), 0.0

    @property
    def elapsed(self) -> float:
        return self.before + self._now() - self._start - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self._paused += self._now() - start


class TimeBudget:
    """Training time spent, the number of steps that a time limit allows, and when a checkpoint is due by time."""

    def __init__(
        self,
        elapsed: float,
        minutes: float | None,
        *,
        first_step: int,
        steps: int,
        checkpoint_minutes: float | None = None,
        cpu_elapsed: float = 0.0,
        cpu_minutes: float | None = None,
    ) -> None:
        """Start the clocks.

        Args:
            elapsed: seconds of training before a resumption.
            minutes: time limit of the whole run; None for no limit.
            first_step: number of steps taken before.
            steps: number of steps of the whole run.
            checkpoint_minutes: time between checkpoints; None for no limit.
            cpu_elapsed: processor seconds of training before a resumption.
            cpu_minutes: limit of the processor time of the whole run, that of this process with all its threads, but
                without its child processes; None for no limit.

        Raises:
            PartitaError: a limit is not positive and finite, or both time and processor time are limited.
        """
        limits = {"minutes": minutes, "cpu_minutes": cpu_minutes, "checkpoint_minutes": checkpoint_minutes}
        for name, value in limits.items():
            if value is not None and not 0 < value < math.inf:
                raise PartitaError(f"{name} is {value}; it must be positive, or None for no limit")
        if minutes is not None and cpu_minutes is not None:
            raise PartitaError(f"minutes is {minutes:g} and cpu_minutes is {cpu_minutes:g}; give only one of them")
        self._wall, self._cpu = _Clock(time.monotonic, elapsed), _Clock(time.process_time, cpu_elapsed)
        self._limited = self._wall if cpu_minutes is None else self._cpu
        limit = minutes if cpu_minutes is None else cpu_minutes
        self._limit = None if limit is None else 60 * limit
        self._checkpoint_seconds = math.inf if checkpoint_minutes is None else 60 * checkpoint_minutes
        self._first_step, self._steps = first_step, steps
        self._last_checkpoint = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training, including those before a resumption."""
        return self._wall.elapsed

    @property
    def cpu_elapsed(self) -> float:
        """Processor seconds of training, including those before a resumption."""
        return self._cpu.elapsed

    def is_over(self, state: TrainState) -> bool:
        """True if all steps are taken or the time is up."""
        return state.step >= self._steps or (self._limit is not None and self._limited.elapsed >= self._limit)

    def total_steps(self, state: TrainState) -> int:
        """Number of steps of the run, estimated from the speed so far if there is a time limit."""
        done = state.step - self._first_step
        if self._limit is None:
            return self._steps
        if done < _SPEED_STEPS:
            return max(state.step, state.total_steps)
        elapsed = self._limited.elapsed
        rate = done / max(elapsed - self._limited.before, 1e-9)
        return max(state.step, min(self._steps, state.step + int(rate * (self._limit - elapsed))))

    def checkpoint_due(self) -> bool:
        """True if the last checkpoint, or the start, is `checkpoint_minutes` ago; pauses count."""
        return time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds

    def checkpoint_written(self) -> None:
        """Restart the time to the next checkpoint."""
        self._last_checkpoint = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count as training, such as an evaluation."""
        with self._wall.paused(), self._cpu.paused():
            yield
