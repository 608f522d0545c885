"""What teaches a representation encoder: the role, and the records that cross it."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from partita_core import Role
from torch import Tensor


class SupervisionInput(NamedTuple):
    """A batch as supervisions see it.

    Attributes:
        features: `(batch, frames, width)`, of the encoder that is taught.
        values: `(batch, dim, frames * K)`, the normalized latents that it was given.
        frames: `(batch,)` int64, frames of each item; what is behind them is padding.
        prompts: an instruction for each item, or None where there are no texts.
        answers: the text that each item is to be answered with, "" where it has none; or None.
    """

    features: Tensor
    values: Tensor
    frames: Tensor
    prompts: list[str] | None = None
    answers: list[str] | None = None


class SupervisionOutput(NamedTuple):
    """What a supervision makes of a batch.

    Attributes:
        loss: scalar, at least float32.
        metrics: detached scalars for the log.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Supervision(Role, ABC):
    """A loss on features, with what it learns for itself.

    Attributes:
        needs_text: whether it makes use of prompts and answers.
    """

    needs_text: bool = False

    @abstractmethod
    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """The loss of a batch; padding does not count."""
