"""The time that a run has taken, and what a limit to it makes of the number of steps."""

import math
import time

from partita_core import PartitaError

from partita.objectives.objective import TrainState

# Steps whose speed is believed when the time limit has to be turned into a number of steps.
_SPEED_STEPS = 10


class Clock:
    """Time spent training, what a time limit makes of the number of steps, and when a checkpoint is due."""

    def __init__(
        self,
        elapsed: float,
        minutes: float | None,
        *,
        first_step: int,
        steps: int,
        checkpoint_minutes: float | None = None,
    ) -> None:
        """Begins now, of a run of `steps` steps that stands at `first_step` and has taken `elapsed` seconds.

        Raises:
            PartitaError: a limit is no length of time.
        """
        for name, value in {"minutes": minutes, "checkpoint_minutes": checkpoint_minutes}.items():
            if value is not None and not 0 < value < math.inf:
                raise PartitaError(f"{name} is {value}; it must be positive, or None for no limit")
        self._before, self._limit = elapsed, None if minutes is None else 60 * minutes
        self._save_every = math.inf if checkpoint_minutes is None else 60 * checkpoint_minutes
        self._saved = time.monotonic()
        self._first_step, self._steps = first_step, steps
        self._begin = time.monotonic()
        self._idle = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resumption included."""
        return self._before + time.monotonic() - self._begin - self._idle

    def over(self, state: TrainState) -> bool:
        """Whether the steps are taken or the time is up."""
        return state.step >= self._steps or (self._limit is not None and self.elapsed >= self._limit)

    def total_steps(self, state: TrainState) -> int:
        """How many steps there will be, by the speed so far; until there is one, as many as there were to be."""
        done = state.step - self._first_step
        if self._limit is None:
            return self._steps
        if done < _SPEED_STEPS:
            return max(state.step, state.total_steps)
        rate = done / (self.elapsed - self._before)
        return max(state.step, min(self._steps, state.step + int(rate * (self._limit - self.elapsed))))

    def save_due(self) -> bool:
        """Whether the last checkpoint, or the start, is long ago; pauses count."""
        return time.monotonic() - self._saved >= self._save_every

    def saved(self) -> None:
        """A checkpoint has been written."""
        self._saved = time.monotonic()

    def paused(self) -> "Pause":
        """Within it, the time does not count."""
        return Pause(self)

    def idle(self, seconds: float) -> None:
        """Takes seconds out of the time."""
        self._idle += seconds


class Pause:
    """Evaluations are not training time."""

    def __init__(self, clock: Clock) -> None:
        """Of `clock`."""
        self._clock = clock

    def __enter__(self) -> None:
        self._begin = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._clock.idle(time.monotonic() - self._begin)
