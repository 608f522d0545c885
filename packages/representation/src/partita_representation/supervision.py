"""Interface of the losses that train a representation encoder."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from partita_core import Role, TypedModule
from torch import Tensor


class SupervisionInput(NamedTuple):
    """Batch that a supervision computes its loss from.

    Attributes:
        features: `(batch, frames, width)` output of the encoder in training.
        values: `(batch, dim, frames * K)` normalized latents, the input of the encoder.
        frames: `(batch,)` int64 valid frames per item; the rest is padding.
        prompts: instruction for each item, or None without texts.
        answers: expected answer for each item, "" for items without one, or None without texts.
    """

    features: Tensor
    values: Tensor
    frames: Tensor
    prompts: list[str] | None = None
    answers: list[str] | None = None


class SupervisionOutput(NamedTuple):
    """Loss and metrics of a batch.

    Attributes:
        loss: scalar, at least float32.
        metrics: detached scalars for the log.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Supervision(Role, TypedModule, ABC):
    """Loss on features, with the parameters that it trains along with the encoder.

    Attributes:
        needs_text: whether the loss uses prompts and answers.
    """

    needs_text: bool = False

    @abstractmethod
    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """Compute the loss of a batch; padding does not count."""
