"""Learning-rate schedules, registered under the role `schedule`: constant, cosine and inverse square root."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

from partita_core import Config, register
from partita_core.ranges import Count, NonNegative, Steps

from partita.objectives.objective import TrainState


@dataclass(frozen=True)
class Schedule(Config):
    """Learning rate over a run: a linear warm-up from zero, times the decay that a subclass defines.

    Attributes:
        warmup_steps: length of the warm-up; 0 for none.
    """

    warmup_steps: Steps = 0

    @abstractmethod
    def decay(self, state: TrainState) -> float:
        """Factor of the peak learning rate for the step that is about to be taken, without the warm-up."""

    def lr_at(self, peak: float, state: TrainState) -> float:
        """Learning rate of the step that is about to be taken."""
        warmup = min(1.0, (state.step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return peak * warmup * self.decay(state)

    def build(self) -> Self:
        """Return the schedule itself, which holds no state."""
        return self

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


@register("schedule/constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The peak learning rate, after the warm-up."""

    def decay(self, state: TrainState) -> float:
        """1; see `Schedule`."""
        return 1.0


@register("schedule/cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine over the run, from the peak learning rate to a fraction of it (SGDR, arXiv 1608.03983).

    Attributes:
        final: learning rate at the end, as a fraction of the peak.
    """

    final: NonNegative = 0.05

    def decay(self, state: TrainState) -> float:
        """From 1 to `final`; see `Schedule`."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * state.progress)) / 2


@register("schedule/inverse_sqrt")
@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """`(1 + step / decay_steps) ** -0.5`, which does not depend on the length of the run.

    Attributes:
        decay_steps: time scale of the decay.
    """

    decay_steps: Count = 200_000

    def decay(self, state: TrainState) -> float:
        """Inverse square root of the step; see `Schedule`."""
        return (1 + state.step / self.decay_steps) ** -0.5
