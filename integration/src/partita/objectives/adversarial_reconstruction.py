"""Adversarial reconstruction: spectral and mel losses, discriminators, and the losses of the bottleneck."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from partita_core import (
    Autoencoder,
    BottleneckOutput,
    Config,
    FeedForwardDecoder,
    PartitaError,
    StepOutput,
    component_field,
    register,
    upcast,
)
from partita_core.ranges import NonNegative, Proportion
from partita_losses import (
    ADVERSARIAL_LOSSES,
    ComplexSTFTDiscriminatorsConfig,
    MultiResolutionSTFTConfig,
    MultiScaleMelConfig,
)
from torch import Tensor, nn

from partita.data import Batch

from .adversarial import AdversarialObjective
from .adversarial_schedule import AdversarialSchedule
from .code_usage import CodeUsage
from .data_fit import fit_parts
from .objective import (
    ObjectiveConfig,
    TrainState,
    check_weights,
    target_audio,
    to_loss_signal,
    weighted_sum,
)


def _default_losses() -> dict[str, Config]:
    return {"stft": MultiResolutionSTFTConfig(), "mel": MultiScaleMelConfig()}


def _default_weights() -> dict[str, float]:
    return {"stft": 1.0, "mel": 1.5, "adversarial": 0.1, "feature_matching": 5.0}


@register("objective/adversarial_reconstruction")
@dataclass(frozen=True)
class AdversarialReconstructionConfig(ObjectiveConfig):
    """Reconstruction with spectral losses, optionally adversarial (GenAE).

    Multi-resolution losses with coprime settings and a mel loss are those of arXiv 2602.15749; weights, settings and
    discriminators are ours, based on the public configuration of Stable Audio Open.

    Attributes:
        losses: distances between reconstruction and target, by the names that `weights` uses.
        weights: weight of each loss, and of "adversarial" and "feature_matching" if there is a discriminator. The
            losses of the bottleneck and of the decoder have weights of their own (`Autoencoder.loss_weights`).
        discriminator: discriminators of the samples; None for a purely spectral objective.
        balancer: scales losses by their gradients on the samples instead of their values; None for plain weights.
        adversarial_loss: loss of the discriminators, and of the term "adversarial".
        adversarial_from: progress of the run, from 0 to 1, at which "adversarial" and "feature_matching" enter the loss
            of the model. Without a discriminator, this and the next two have no effect.
        discriminator_warmup: fraction of the run before `adversarial_from` in which the discriminators are trained.
            Before it, they take no time.
        adversarial_ramp: fraction of the run after `adversarial_from` in which the two weights rise linearly from 0.
        losses_from: progress of the run, from 0 to 1, before which only the losses of the bottleneck and of the decoder
            count. Nothing is decoded to audio then.
        quantize_from: progress of the run, from 0 to 1, before which the decoder gets continuous latents if the
            bottleneck is a quantizer, whose codebooks adapt to them. A voice codec that was quantized from the first
            step learned markedly slower.
    """

    losses: dict[str, Config] = field(default_factory=_default_losses, metadata={"roles": ("loss",)})
    weights: dict[str, NonNegative] = field(default_factory=_default_weights)
    discriminator: Config | None = component_field("discriminator", default=ComplexSTFTDiscriminatorsConfig())
    balancer: Config | None = component_field("balancer", default=None)
    adversarial_loss: Literal["hinge", "least_squares"] = "hinge"
    losses_from: Proportion = 0.0
    quantize_from: Proportion = 0.0
    adversarial_from: Proportion = 0.0
    discriminator_warmup: Proportion = 0.0
    adversarial_ramp: Proportion = 0.0

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            PartitaError: a number is out of its range, or the warmup is longer than the part of the run before
                `adversarial_from`.
        """
        super().__post_init__()
        self._schedule()

    def _schedule(self) -> AdversarialSchedule:
        return AdversarialSchedule(self.adversarial_from, self.discriminator_warmup, self.adversarial_ramp)

    def build(self, *, model: Autoencoder) -> "AdversarialReconstruction":
        """Build the objective of `model`."""
        audio_spec = model.audio_spec
        return AdversarialReconstruction(
            model=model,
            losses={name: config.build(audio_spec=audio_spec) for name, config in self.losses.items()},
            weights=self.weights,
            discriminator=self.discriminator.build(audio_spec=audio_spec) if self.discriminator else None,
            balancer=self.balancer.build(weights=self.weights) if self.balancer else None,
            adversarial_loss=self.adversarial_loss,
            schedule=self._schedule(),
            losses_from=self.losses_from,
            quantize_from=self.quantize_from,
        )

    @classmethod
    def example(cls) -> "AdversarialReconstructionConfig":
        """Tiny losses and discriminators."""
        return cls(
            losses={"stft": MultiResolutionSTFTConfig.example(), "mel": MultiScaleMelConfig.example()},
            discriminator=ComplexSTFTDiscriminatorsConfig.example(),
        )


class AdversarialReconstruction(AdversarialObjective):
    """Reconstruction by an autoencoder with a feed-forward decoder; see `AdversarialReconstructionConfig`."""

    requires = frozenset({"audio", "audio_lengths", "layout", "target_layout"})
    model: Autoencoder

    def __init__(
        self,
        *,
        model: Autoencoder,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        discriminator: nn.Module | None,
        balancer: nn.Module | None,
        adversarial_loss: Literal["hinge", "least_squares"],
        schedule: AdversarialSchedule,
        losses_from: float,
        quantize_from: float,
    ) -> None:
        """Wrap `model`; arguments as in `AdversarialReconstructionConfig`.

        Raises:
            PartitaError: the decoder is not feed-forward, losses and weights do not match, no loss has a weight before
                the adversarial stage, or `losses_from` is above 0 with a decoder that has no losses, or is after the
                first step of the discriminators.
        """
        super().__init__(model, discriminator, ADVERSARIAL_LOSSES[adversarial_loss], schedule)
        if not isinstance(model.decoder, FeedForwardDecoder):
            raise PartitaError(
                f"AdversarialReconstruction needs a feed-forward decoder; {type(model.decoder).__name__} is not one"
            )
        self.balancer, self.losses, self.weights = balancer, nn.ModuleDict(losses), dict(weights)
        check_weights({*losses, *self.adversarial_terms}, self.weights)
        if self.stage(TrainState()) and not any(self.weights[name] for name in losses):
            raise PartitaError(
                f"no loss has a weight above 0 before adversarial_from, {schedule.start:g}; add one to objective.losses"
            )
        if losses_from and not model.decoder.loss_weights:
            kind = type(model.decoder).__name__
            raise PartitaError(
                f"losses_from is {losses_from:g}, but {kind} has no losses to train by before; set it to 0"
            )
        if discriminator is not None and losses_from > schedule.start - schedule.warmup:
            raise PartitaError(
                f"losses_from is {losses_from:g}, but discriminators are trained from "
                f"{schedule.start - schedule.warmup:g} on; start them later"
            )
        self.losses_from, self.quantize_from = losses_from, quantize_from
        self.crop_multiple = model.latent_spec.hop
        self.code_usage = CodeUsage(model.bottleneck.codebook_sizes)

    def initialize(self, batches: Iterable[Batch], *, seconds: float | None = None) -> str:
        """Fit the parts that are measured on data; see `Objective`."""
        return fit_parts(self.model, batches, seconds=seconds)

    def train_model(self, batch: Batch, state: TrainState) -> StepOutput:
        """Reconstruct the batch; see `AdversarialObjective`."""
        lengths = batch["audio_lengths"]
        inputs = batch["audio"], batch["layout"], batch["target_layout"]
        quantize = state.progress >= self.quantize_from
        if state.progress < self.losses_from:
            bottleneck = self.model.own_losses(*inputs, lengths=lengths, quantize=quantize)
            return self._output(bottleneck, {}, torch.zeros(()), state, None)
        reconstruction, bottleneck = self.model(*inputs, lengths=lengths, quantize=quantize)
        with torch.autocast(reconstruction.device.type, enabled=False):
            samples, target = to_loss_signal(upcast(reconstruction), batch, batch["target_layout"]), target_audio(batch)
            terms = {name: loss(samples, target, lengths=lengths).mean() for name, loss in self.losses.items()}
        weights = self.weights_at(state, self.weights)
        if weights.keys() > terms.keys():
            terms |= self.discriminate(target, samples)
        total = weighted_sum(terms, weights) if self.balancer is None else self.balancer(terms, samples, weights)
        return self._output(bottleneck, terms, total, state, samples.detach())

    def _output(
        self,
        bottleneck: BottleneckOutput,
        terms: dict[str, Tensor],
        total: Tensor,
        state: TrainState,
        samples: Tensor | None,
    ) -> StepOutput:
        """Output of the phase: `total` of the terms on samples, plus the losses of the bottleneck and the decoder."""
        own = bottleneck.losses
        if own:
            check_weights(set(own), self.model.loss_weights)
            total = weighted_sum(own, self.model.loss_weights) + total
        losses = {name: upcast(term.detach()) for name, term in (terms | own).items()}
        metrics = bottleneck.metrics | self.code_usage(bottleneck.codes, state.step)
        return StepOutput(total, losses, metrics, samples)

    def signals(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Target and reconstruction; see `AdversarialObjective`."""
        return target_audio(batch), batch["samples"]
