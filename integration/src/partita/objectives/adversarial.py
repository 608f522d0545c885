"""Base class of objectives that may train a discriminator in turn with the model."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from partita_core import DiscriminatorOutput, StepOutput, frozen_call, upcast
from partita_losses import AdversarialLoss, feature_matching_loss
from torch import Tensor, nn

from partita.data import Batch

from .adversarial_schedule import ALWAYS_ADVERSARIAL, AdversarialSchedule
from .objective import Objective, TrainState, mean_logit, trainable_group

ADVERSARIAL_TERMS = ("adversarial", "feature_matching")
"""Loss terms of the model that a discriminator adds."""


class AdversarialObjective(Objective):
    """Objective of a model in the phase "generator", and of its discriminator, if there is one, in the next phase.

    Attributes:
        discriminator: discriminator of real and generated signals, or None.
        adversarial_loss: losses of the discriminator and of the term "adversarial".
        schedule: stages of the run, if there is a discriminator.
    """

    def __init__(
        self,
        model: nn.Module,
        discriminator: nn.Module | None,
        adversarial_loss: AdversarialLoss,
        schedule: AdversarialSchedule = ALWAYS_ADVERSARIAL,
    ) -> None:
        super().__init__()
        self.model, self.discriminator, self.adversarial_loss = model, discriminator, adversarial_loss
        self.schedule = schedule
        self.phases = ("generator",) if discriminator is None else ("generator", "discriminator")
        self.loss_at_chance = None if discriminator is None else adversarial_loss.chance

    @property
    def adversarial_terms(self) -> tuple[str, ...]:
        """Names of the terms that `discriminate` returns."""
        return () if self.discriminator is None else ADVERSARIAL_TERMS

    def phases_at(self, state: TrainState) -> tuple[str, ...]:
        """Phases of a step: only "generator" in the stage "reconstruction"; see `Objective`."""
        return self.phases[:1] if self.schedule.stage(state.progress) == "reconstruction" else self.phases

    def stage(self, state: TrainState) -> str:
        """Stage of the schedule, if it has more than one; see `Objective`."""
        staged = self.discriminator is not None and self.schedule.start > 0
        return self.schedule.stage(state.progress) if staged else ""

    def weights_at(self, state: TrainState, weights: Mapping[str, float]) -> dict[str, float]:
        """Weights of the terms that are in the loss in the present stage."""
        scales = dict.fromkeys(weights, 1.0)
        for term in self.adversarial_terms:
            scales[term] = self.schedule.scale(state.progress)
            if self.schedule.stage(state.progress) != "adversarial":
                del scales[term]
        return {name: scale * weights[name] for name, scale in scales.items()}

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """Compute one phase; see `Objective`."""
        if phase == "generator":
            return self.train_model(batch, state)
        assert self.discriminator is not None
        real, fake = (self.discriminator(signal) for signal in self.signals(batch))
        loss = self.adversarial_loss.discriminator(real, fake)
        metrics = {"real_logit": mean_logit(real), "fake_logit": mean_logit(fake)}
        return StepOutput(upcast(loss), {"discriminator": upcast(loss.detach())}, metrics, None)

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Parameters of the model, or of the discriminator; see `Objective`."""
        trained = self.model if phase == "generator" else self.discriminator
        assert trained is not None
        return trainable_group(trained)

    def discriminate(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Loss terms of the model by the discriminator, which is not trained by them; none without a discriminator."""
        if self.discriminator is None:
            return {}
        judged: list[DiscriminatorOutput] = frozen_call(self.discriminator, fake)
        with torch.no_grad():
            reference = self.discriminator(real)
        values = self.adversarial_loss.generator(judged), feature_matching_loss(reference, judged)
        return dict(zip(ADVERSARIAL_TERMS, values))

    @abstractmethod
    def train_model(self, batch: Batch, state: TrainState) -> StepOutput:
        """Compute the phase "generator"; `samples` of the result are what `signals` takes from the batch."""

    @abstractmethod
    def signals(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Real and generated signals for the discriminator; the batch has the `samples` of the phase before."""
