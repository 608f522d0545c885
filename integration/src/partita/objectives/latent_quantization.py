"""Latent quantization: training of a quantizer on the continuous latents of a frozen codec."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from partita_core import (
    Codec,
    Config,
    Frozen,
    PartitaError,
    Quantizer,
    Saved,
    StepOutput,
    attach_quantizer,
    check_quantizer_fits,
    component_field,
    mean_within,
    register,
    tokens_within,
    upcast,
)
from partita_core.ranges import Count, NonNegative, Proportion
from partita_losses import ADVERSARIAL_LOSSES, LatentDiscriminatorConfig
from torch import Tensor, nn

from partita.data import Batch

from .adversarial import AdversarialObjective
from .code_usage import CodeUsage
from .latent_batches import SOURCE, fill_padding, latents_of, tokens_of
from .objective import (
    ObjectiveConfig,
    TrainState,
    check_weights,
    target_audio,
    to_loss_signal,
    weighted_sum,
)


def _default_weights() -> dict[str, float]:
    return {"latent": 1.0, "adversarial": 0.1, "feature_matching": 5.0}


@register("objective/latent_quantization")
@dataclass(frozen=True)
class LatentQuantizationConfig(ObjectiveConfig):
    """A quantizer for the latents of a frozen codec (GenAE-VQ).

    The RVQ that is trained after the autoencoder is published (arXiv 2602.15749); the losses follow Re-Bottleneck
    (arXiv 2507.07867), by the same first author, and their weights are ours. The losses of the quantizer have weights
    of their own (`Bottleneck.loss_weights`).

    Attributes:
        weights: weights of "latent" (the mean absolute error of latents of unit variance), of "adversarial" and
            "feature_matching" if there is a discriminator, and of each loss in `losses`.
        discriminator: discriminator of latents; None for none.
        losses: distances between the audio that the frozen decoder makes of the quantized latents and the target, by
            the names that `weights` uses.
        losses_from: fraction of the run from which `losses` are computed.
        start_tokens: number of latents that the scale and the k-means of each level are initialized from; at most as
            many as the data holds, and at least one per code.
    """

    needs_codec: ClassVar[bool] = True
    model_roles: ClassVar[tuple[str, ...]] = ("quantizer",)

    weights: dict[str, NonNegative] = field(default_factory=_default_weights)
    discriminator: Config | None = component_field("latent_discriminator", default=LatentDiscriminatorConfig())
    losses: dict[str, Config] = field(default_factory=dict, metadata={"roles": ("loss",)})
    losses_from: Proportion = 0.8
    start_tokens: Count = 20_000

    def build(self, *, model: Quantizer, codec: Frozen) -> "LatentQuantization":
        """Build the objective of `model` on the latents of `codec`."""
        audio_spec, dim = codec.module.audio_spec, model.dim
        return LatentQuantization(
            model=model,
            frozen_codec=codec,
            discriminator=self.discriminator.build(dim=dim) if self.discriminator else None,
            losses={name: config.build(audio_spec=audio_spec) for name, config in self.losses.items()},
            weights=self.weights,
            losses_from=self.losses_from,
            start_tokens=self.start_tokens,
        )

    @classmethod
    def example(cls) -> "LatentQuantizationConfig":
        """A tiny discriminator, and initialization from few latents."""
        return cls(discriminator=LatentDiscriminatorConfig.example(), start_tokens=64)


class LatentQuantization(AdversarialObjective):
    """Training of a quantizer on the latents of a frozen codec, stored or encoded on the fly.

    See `LatentQuantizationConfig`. An item that is shorter than a crop is repeated, so that neither the discriminator
    nor the context of the quantizer contains padding; its latent loss counts once. Losses on audio need audio.
    """

    model: Quantizer
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        model: Quantizer,
        frozen_codec: Frozen,
        discriminator: nn.Module | None,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        losses_from: float,
        start_tokens: int,
    ) -> None:
        """Wrap `model`; arguments as in `LatentQuantizationConfig`.

        Raises:
            PartitaError: the quantizer does not fit the latents of the codec, or losses and weights do not match.
        """
        super().__init__(model, discriminator, ADVERSARIAL_LOSSES["hinge"])
        self.frozen_codec = frozen_codec
        check_quantizer_fits(self._frozen.latent_spec, model)
        self.losses, self.weights = nn.ModuleDict(losses), dict(weights)
        self.losses_from, self.start_tokens = losses_from, start_tokens
        check_weights({"latent", *losses, *self.adversarial_terms}, self.weights)
        self.requires = frozenset({SOURCE, "audio_lengths", "layout"})
        if losses:
            self.requires |= {"audio", "target_layout"}
        self.crop_multiple = self._frozen.latent_spec.hop
        self.register_buffer("mean", torch.zeros(model.dim, 1))
        self.register_buffer("std", torch.ones(model.dim, 1))
        self.code_usage = CodeUsage(model.codebook_sizes)

    @property
    def _frozen(self) -> Codec:
        return self.frozen_codec.module  # pyright: ignore[reportReturnType]

    @property
    def codec(self) -> Codec:
        """Frozen codec whose latents are quantized; see `Objective`."""
        return self._frozen

    @property
    def result(self) -> Saved:
        """Frozen codec with the quantizer attached; see `Objective`."""
        return attach_quantizer(self._frozen, self.model)  # pyright: ignore[reportReturnType]

    def initialize(self, batches: Iterable[Batch], *, seconds: float | None = None) -> str:
        """Measure the scale of the latents, and initialize the codebooks of the quantizer; see `Objective`."""
        spec, initialize = self._frozen.latent_spec, getattr(self.model, "initialize", None)
        available = math.inf if seconds is None else math.ceil(seconds * spec.frame_rate * spec.tokens_per_frame)
        needed = 0 if initialize is None else max(self.model.codebook_sizes)
        wanted = min(self.start_tokens, max(available, needed))
        gathered, lengths, tokens = [], [], 0
        for batch in batches:
            gathered.append(self._latents(batch))
            lengths.append(tokens_of(batch, spec))
            tokens += int(lengths[-1].sum())
            if tokens >= wanted:
                break
        values = torch.cat(gathered)
        counted = tokens_within(values, torch.cat(lengths))
        self.mean.copy_(counted.mean(0)[:, None])
        self.std.copy_(counted.std(0)[:, None].clamp_min(torch.finfo(values.dtype).eps))
        if initialize is not None:
            initialize(values)
        limit = f" ({self.start_tokens} requested, the data has {available})" if available < self.start_tokens else ""
        return f"initialized from {tokens} latents{limit}"

    def train_model(self, batch: Batch, state: TrainState) -> StepOutput:
        """Quantize the latents of the batch; see `AdversarialObjective`."""
        values = self._latents(batch)
        output = self.model(values, lengths=tokens_of(batch, self._frozen.latent_spec))
        real, fake = self._normalize(values), self._normalize(upcast(output.values))
        terms = {"latent": self._distance(real, fake, batch)} | self.discriminate(real, fake)
        if self.losses and state.progress >= self.losses_from:
            terms |= self._audio_terms(output.values, batch)
        check_weights(set(output.losses), self.model.loss_weights)
        total = weighted_sum(terms, self.weights)
        if output.losses:
            total = total + weighted_sum(output.losses, self.model.loss_weights)
        losses = {name: upcast(term.detach()) for name, term in (terms | output.losses).items()}
        metrics = output.metrics | self.code_usage(output.codes, state.step)
        return StepOutput(total, losses, metrics, torch.stack([real, fake]).detach())

    def signals(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalized latents and their quantized values; see `AdversarialObjective`."""
        real, fake = batch["samples"]
        return real, fake

    def _latents(self, batch: Batch) -> Tensor:
        values = upcast(latents_of(batch, self._frozen))
        return fill_padding(values, tokens_of(batch, self._frozen.latent_spec))

    def _normalize(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def _distance(self, real: Tensor, fake: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error over the frames that contain audio."""
        return mean_within((real - fake).abs().mean(1), tokens_of(batch, self._frozen.latent_spec))

    def _audio_terms(self, values: Tensor, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(values.device.type, enabled=False):
            layout = batch["target_layout"]
            audio = upcast(self._frozen.decode_frames(values, None, layout, None, None))
            if values.requires_grad and not audio.requires_grad:
                name = type(self._frozen).__name__
                raise PartitaError(
                    f"the decoder of {name} passes no gradient that audio losses need; leave objective.losses empty"
                )
            audio, target = to_loss_signal(audio, batch, layout), target_audio(batch)
            lengths = batch["audio_lengths"]
            return {name: loss(audio, target, lengths=lengths).mean() for name, loss in self.losses.items()}
