"""What the trainer sees: an objective, the one module that is prepared, so that every trained path is its forward."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from partita_core import (
    ChannelLayout,
    Codec,
    DiscriminatorOutput,
    PartitaError,
    Saved,
    StepOutput,
    convert_pairs,
    length_mask,
    upcast,
)
from torch import Tensor, nn

from partita.data import Batch


@dataclass
class TrainState:
    """Where a run is; checkpointed, and what every schedule depends on.

    Attributes:
        step: optimizer steps done.
        total_steps: how many there will be; an estimate, growing better, where time is the limit.
        since: a step and the progress there, from which on it rises to 1 at the last step; the step at which the run
            was given another number of steps, if it was.
    """

    step: int = 0
    total_steps: int = 1
    since: tuple[int, float] = (0, 0.0)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        step, done = self.since
        return min(1.0, done + (1.0 - done) * ((self.step - step) / max(1, self.total_steps - step)))

    def go_on(self, total_steps: int) -> None:
        """Change the number of steps: progress goes on from where it is, and none that was made is taken back."""
        self.since = self.step, self.progress
        self.total_steps = total_steps


class Objective(nn.Module, ABC):
    """A model with what it is trained for.

    Attributes:
        phases: what a step consists of, in order: `("generator",)`, or with `"discriminator"` after it.
        requires: keys a batch must have; one of several is written `"audio|latents"`.
        crop_multiple: samples that crops must be a multiple of.
        model: what is trained and averaged.
    """

    phases: tuple[str, ...]
    requires: frozenset[str]
    crop_multiple: int
    model: Any

    @abstractmethod
    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """One phase of a step.

        A phase adds nothing to the gradients of parameters outside its `parameter_groups`; it calls modules that it
        does not train through `frozen_call`. What it returns as `samples` the next phase finds in the batch.
        """

    @abstractmethod
    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """What the optimizer of a phase gets; empty groups where the phase has nothing for one."""

    @property
    def codec(self) -> Codec:
        """What the data is cut for: the codec that is trained, or the one that the model is built on."""
        return self.model

    @property
    def result(self) -> Saved:
        """What is saved in the end, with the weights of the moment; a codec is listened to on the way."""
        return self.model

    def begin(self, batches: Iterable[Batch], *, seconds: float | None = None) -> str:
        """Prepare with data before the first step, as a start of codebooks does; not done on resuming.

        Args:
            batches: on the device, without end, the same in every process; reading them leaves training's alone.
            seconds: audio that the data holds, beyond which batches are more of the same; None where it is unknown.

        Returns:
            One line for the log; empty where nothing was done.
        """
        return ""

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Refuses data that lacks what the objective needs.

        Raises:
            PartitaError: a key of `requires` is missing.
        """
        missing = [keys for keys in sorted(self.requires) if not any(key in batch for key in keys.split("|"))]
        if missing:
            named = ", ".join(keys.replace("|", " or ") for keys in missing)
            raise PartitaError(f"{type(self).__name__} needs {named}, which the data does not have")


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum of terms by their weights, in at least float32."""
    return torch.stack([upcast(term) * weights[name] for name, term in terms.items()]).sum()


def check_weights(terms: set[str], weights: Mapping[str, float]) -> None:
    """Holds terms and weights together, so that nothing trains unweighed or is weighed for nothing.

    Raises:
        PartitaError: a term has no weight, or a weight no term; it is named.
    """
    unweighed, unclaimed = sorted(terms - weights.keys()), sorted(weights.keys() - terms)
    if unweighed:
        known = ", ".join(sorted(weights))
        raise PartitaError(
            f"no weight is given for the loss {unweighed[0]!r}; set weights.{unweighed[0]} beside those of {known}"
        )
    if unclaimed:
        raise PartitaError(
            f"nothing makes the loss {unclaimed[0]!r} that has a weight; losses: {', '.join(sorted(terms))}; add it to "
            "the losses, or leave out the weight"
        )


def to_loss_signal(audio: Tensor, batch: Batch, layout: Tensor) -> Tensor:
    """Network audio of `layout` as the losses take it: left and right (mono twice its mean), zero past the end."""
    wanted = torch.where(layout == ChannelLayout.MID_SIDE, int(ChannelLayout.STEREO), layout)
    audio = convert_pairs(audio, layout, wanted)
    inside = length_mask(batch["audio_lengths"], audio.shape[-1])
    return torch.where(inside[:, None].to(audio.device), audio, 0)


def target_audio(batch: Batch) -> Tensor:
    """What a reconstruction of the batch in its target layouts is to be, as `to_loss_signal`."""
    audio = convert_pairs(batch["audio"], batch["layout"], batch["target_layout"])
    return to_loss_signal(audio, batch, batch["target_layout"])


def mean_logit(outputs: Sequence[DiscriminatorOutput]) -> Tensor:
    """What discriminators say on average, for the log."""
    return torch.stack([upcast(output.logits.detach()).mean() for output in outputs]).mean()
