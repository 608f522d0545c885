"""Time that a run has taken, its limit, and the number of steps that fit in the rest."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from partita_core import PartitaError

from partita.objectives.objective import TrainState

# Number of steps whose speed is needed to estimate how many fit in a time limit.
_SPEED_STEPS = 10


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
    ) -> None:
        """Start the clock.

        Args:
            elapsed: seconds of training before a resumption.
            minutes: time limit of this part of the run; None for no limit.
            first_step: number of steps taken before.
            steps: number of steps of the whole run.
            checkpoint_minutes: time between checkpoints; None for no limit.

        Raises:
            PartitaError: a limit is not positive and finite.
        """
        for name, value in {"minutes": minutes, "checkpoint_minutes": checkpoint_minutes}.items():
            if value is not None and not 0 < value < math.inf:
                raise PartitaError(f"{name} is {value}; it must be positive, or None for no limit")
        self._before, self._limit = elapsed, None if minutes is None else 60 * minutes
        self._checkpoint_seconds = math.inf if checkpoint_minutes is None else 60 * checkpoint_minutes
        self._first_step, self._steps = first_step, steps
        self._start = self._last_checkpoint = time.monotonic()
        self._paused = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training, including those before a resumption."""
        return self._before + time.monotonic() - self._start - self._paused

    def is_over(self, state: TrainState) -> bool:
        """True if all steps are taken or the time is up."""
        return state.step >= self._steps or (self._limit is not None and self.elapsed >= self._limit)

    def total_steps(self, state: TrainState) -> int:
        """Number of steps of the run, estimated from the speed so far if there is a time limit."""
        done = state.step - self._first_step
        if self._limit is None:
            return self._steps
        if done < _SPEED_STEPS:
            return max(state.step, state.total_steps)
        rate = done / (self.elapsed - self._before)
        return max(state.step, min(self._steps, state.step + int(rate * (self._limit - self.elapsed))))

    def checkpoint_due(self) -> bool:
        """True if the last checkpoint, or the start, is `checkpoint_minutes` ago; pauses count."""
        return time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds

    def checkpoint_written(self) -> None:
        """Restart the time to the next checkpoint."""
        self._last_checkpoint = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context whose time does not count as training, such as an evaluation."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - start
