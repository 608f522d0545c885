"""Reconstruction with one loss."""

from dataclasses import dataclass
from typing import Any

import torch
from partita.data import Batch
from partita.objectives.objective import (
    Objective,
    ObjectiveConfig,
    TrainState,
    check_weights,
    target_audio,
    to_loss_signal,
    trainable_group,
    weighted_sum,
)
from partita_core import (
    Autoencoder,
    Config,
    FeedForwardDecoder,
    Loss,
    PartitaError,
    StepOutput,
    component_field,
    register,
    upcast,
)
from partita_losses import WaveformL1Config


@register("objective/newcomer")
@dataclass(frozen=True)
class NewcomerConfig(ObjectiveConfig):
    """Reconstruction with one loss, and the losses of the bottleneck with their own weights.

    Attributes:
        loss: distance between reconstruction and target.
    """

    loss: Config = component_field("loss", default=WaveformL1Config())

    def build(self, *, model: Autoencoder) -> "Newcomer":
        """Build the objective of `model`."""
        return Newcomer(model, self.loss.build(audio_spec=model.audio_spec))

    @classmethod
    def example(cls) -> "NewcomerConfig":
        """The defaults."""
        return cls()


class Newcomer(Objective):
    """Reconstruction by an autoencoder with a feed-forward decoder; see `NewcomerConfig`.

    Raises:
        PartitaError: the decoder is not feed-forward.
    """

    phases = ("generator",)
    requires = frozenset({"audio", "audio_lengths", "layout", "target_layout"})
    model: Autoencoder

    def __init__(self, model: Autoencoder, loss: Loss) -> None:
        super().__init__()
        if not isinstance(model.decoder, FeedForwardDecoder):
            decoder = type(model.decoder).__name__
            raise PartitaError(f"the objective needs a feed-forward decoder; {decoder} is not one")
        self.model, self.loss, self.crop_multiple = model, loss, model.latent_spec.hop

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """Compute the only phase; see `Objective`."""
        lengths = batch["audio_lengths"]
        audio, bottleneck = self.model(batch["audio"], batch["layout"], batch["target_layout"], lengths=lengths)
        with torch.autocast(audio.device.type, enabled=False):
            samples = to_loss_signal(upcast(audio), batch, batch["target_layout"])
            distance = self.loss(samples, target_audio(batch), lengths=lengths).mean()
        check_weights(set(bottleneck.losses), self.model.bottleneck.loss_weights)
        terms = {"distance": distance, **bottleneck.losses}
        total = weighted_sum(terms, {"distance": 1.0, **self.model.bottleneck.loss_weights})
        losses = {name: upcast(term.detach()) for name, term in terms.items()}
        return StepOutput(total, losses, bottleneck.metrics, samples.detach())

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Parameters of the model."""
        return trainable_group(self.model)
