"""Stages of a run with discriminators: reconstruction, warmup of the discriminators, adversarial training."""

from dataclasses import dataclass
from typing import Literal

from partita_core import PartitaError

Stage = Literal["reconstruction", "discriminator warmup", "adversarial"]


@dataclass(frozen=True)
class AdversarialSchedule:
    """Stages by the progress of a run, from 0 to 1; by default, all of it is adversarial.

    Attributes:
        start: progress at which the adversarial terms enter the loss of the model.
        warmup: fraction of the run before `start` in which the discriminators are trained, but not yet the model on
            them. Before it, they take no time.
        ramp: fraction of the run after `start` in which the weights of the terms rise linearly from 0.
    """

    start: float = 0.0
    warmup: float = 0.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        """Check that the warmup begins within the run.

        Raises:
            PartitaError: the warmup is longer than the part of the run before `start`.
        """
        if self.warmup > self.start:
            raise PartitaError(
                f"discriminator_warmup is {self.warmup:g}, which exceeds adversarial_from, {self.start:g}; it is the "
                "fraction of the run directly before adversarial_from"
            )

    def stage(self, progress: float) -> Stage:
        """Stage at a progress."""
        if progress >= self.start:
            return "adversarial"
        return "discriminator warmup" if progress >= self.start - self.warmup else "reconstruction"

    def scale(self, progress: float) -> float:
        """Factor on the weights of the adversarial terms, from 0 to 1, in the adversarial stage."""
        return min(1.0, (progress - self.start) / self.ramp) if self.ramp > 0 else 1.0


ALWAYS_ADVERSARIAL = AdversarialSchedule()
"""Schedule of a run with a single stage."""
