"""Base class of training objectives, and the state that their schedules depend on."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from partita_core import (
    ChannelLayout,
    Codec,
    Config,
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
    """Progress of a run; saved in checkpoints, and the input of every schedule.

    Attributes:
        step: number of optimizer steps taken.
        total_steps: number of steps of the whole run; an estimate that improves over time if time is the limit.
        since: step and progress from which progress rises to 1 at the last step; set when a run is extended.
    """

    step: int = 0
    total_steps: int = 1
    since: tuple[int, float] = (0, 0.0)

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, from 0 to 1."""
        step, done = self.since
        return min(1.0, done + (1.0 - done) * ((self.step - step) / max(1, self.total_steps - step)))

    def extend(self, total_steps: int) -> None:
        """Change the number of steps; progress continues from its current value."""
        self.since = self.step, self.progress
        self.total_steps = total_steps


class ObjectiveConfig(Config):
    """Configuration of an objective; `build` takes the `model` and, if `needs_codec`, the frozen `codec`.

    Attributes:
        model_roles: roles of the models that the objective trains.
    """

    model_roles: ClassVar[tuple[str, ...]] = ("autoencoder",)


class Objective(nn.Module, ABC):
    """A model together with its losses: the one module that the trainer prepares, and calls for every phase of a step.

    Attributes:
        phases: phases of a step, in order: `("generator",)`, or with `"discriminator"` after it.
        requires: keys that a batch must have; alternatives are written as `"audio|latents"`.
        crop_multiple: number of samples that crops must be a multiple of.
        model: the module that is trained and averaged.
        loss_at_chance: value of `loss/discriminator` for discriminators that cannot tell signals apart; None if there
            are none.

    Example:
        Reconstruction by an L1 distance::

            class Reconstruction(Objective):
                phases = ("generator",)
                requires = frozenset({"audio", "audio_lengths", "layout", "target_layout"})

                def __init__(self, model: Autoencoder) -> None:
                    super().__init__()
                    self.model, self.crop_multiple = model, model.latent_spec.hop

                def forward(self, batch, state, phase):
                    output, _ = self.model(batch["audio"], batch["layout"], batch["target_layout"])
                    loss = (to_loss_signal(output, batch, batch["target_layout"]) - target_audio(batch)).abs().mean()
                    return StepOutput(loss, {"l1": loss.detach()}, {}, None)

                def parameter_groups(self, phase):
                    return [{"params": list(self.model.parameters())}]
    """

    phases: tuple[str, ...]
    requires: frozenset[str]
    crop_multiple: int
    model: Any
    loss_at_chance: float | None = None

    @abstractmethod
    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """Compute one phase of a step.

        A phase must not add to the gradients of parameters outside of its `parameter_groups`; it calls modules that it
        does not train through `frozen_call`. The returned `samples` are in the batch of the next phase.

        Args:
            batch: batch on the device.
            state: progress of the run.
            phase: one of `phases`.
        """

    @abstractmethod
    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer of a phase; empty if the phase trains nothing."""

    def phases_at(self, state: TrainState) -> tuple[str, ...]:
        """Phases of a step in the present state: the first of `phases`, and those of the others that are due."""
        return self.phases

    def stage(self, state: TrainState) -> str:
        """Name of the present stage of the run, for the log; empty if there is only one."""
        return ""

    @property
    def codec(self) -> Codec:
        """Codec that crops are cut for: the model itself, or the frozen codec that it is built on."""
        return self.model

    @property
    def result(self) -> Saved:
        """Model that is saved at the end of the run; its audio is evaluated during the run if it is a codec."""
        return self.model

    def initialize(self, batches: Iterable[Batch], *, seconds: float | None = None) -> str:
        """Initialize parts from data before the first step of a new run, such as codebooks.

        Args:
            batches: endless batches on the device, the same in every process and independent of those of the training.
            seconds: duration of the audio in the data, after which batches repeat; None if unknown.

        Returns:
            One line for the log; empty if nothing was initialized.
        """
        return ""

    def check_batch(self, batch: Mapping[str, Any]) -> None:
        """Check that a batch has the keys of `requires`.

        Raises:
            PartitaError: a key is missing.
        """
        missing = [keys for keys in sorted(self.requires) if not any(key in batch for key in keys.split("|"))]
        if missing:
            listed = ", ".join(keys.replace("|", " or ") for keys in missing)
            raise PartitaError(f"{type(self).__name__} needs {listed}, which the data does not have")


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of loss terms multiplied by their weights, in at least float32."""
    return torch.stack([upcast(term) * weights[name] for name, term in terms.items()]).sum()


def check_weights(terms: set[str], weights: Mapping[str, float]) -> None:
    """Check that every loss term has a weight and every weight a term.

    Raises:
        PartitaError: a term or a weight has no counterpart; the first is named.
    """
    unweighted, unused = sorted(terms - weights.keys()), sorted(weights.keys() - terms)
    if unweighted:
        known = ", ".join(sorted(weights)) or "none"
        raise PartitaError(
            f"the loss {unweighted[0]!r} has no weight; set objective.weights.{unweighted[0]}; present weights: {known}"
        )
    if unused:
        raise PartitaError(
            f"the weight {unused[0]!r} belongs to no loss; losses: {', '.join(sorted(terms))}; add the loss, or remove "
            "the weight"
        )


def to_loss_signal(audio: Tensor, batch: Batch, layout: Tensor) -> Tensor:
    """Convert network audio to the signal that losses compare: left and right, zero past the end of each item.

    Args:
        audio: `(batch, channels, samples)` network audio; mono is a pair of channels, of which the mean counts.
        batch: batch with the lengths of the items.
        layout: `(batch,)` channel layouts of `audio`.
    """
    wanted = torch.where(layout == ChannelLayout.MID_SIDE, int(ChannelLayout.STEREO), layout)
    audio = convert_pairs(audio, layout, wanted)
    inside = length_mask(batch["audio_lengths"], audio.shape[-1])
    return torch.where(inside[:, None].to(audio.device), audio, 0)


def target_audio(batch: Batch) -> Tensor:
    """Target of a reconstruction of the batch in its target layouts; see `to_loss_signal`."""
    audio = convert_pairs(batch["audio"], batch["layout"], batch["target_layout"])
    return to_loss_signal(audio, batch, batch["target_layout"])


def mean_logit(outputs: Sequence[DiscriminatorOutput]) -> Tensor:
    """Mean logit of several discriminators, for the log."""
    return torch.stack([upcast(output.logits.detach()).mean() for output in outputs]).mean()


def trainable_group(module: nn.Module) -> list[dict[str, Any]]:
    """One parameter group with the parameters of a module that require gradients."""
    return [{"params": [parameter for parameter in module.parameters() if parameter.requires_grad]}]
