"""Representation supervision: training of a representation encoder on the latents of a frozen codec."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from partita_core import Codec, Config, Frozen, PartitaError, StepOutput, register, upcast
from partita_core.ranges import NonNegative
from partita_representation import FrozenLLMConfig, RepresentationModel, RQMTPConfig, Supervision, SupervisionInput
from torch import Tensor, nn

from partita.data import Batch

from .latent_batches import SOURCE, latents_of, tokens_of
from .objective import Objective, ObjectiveConfig, TrainState, check_weights, trainable_group, weighted_sum


def _default_supervisions() -> dict[str, Config]:
    return {"rq": RQMTPConfig(), "llm": FrozenLLMConfig()}


@register("objective/representation_supervision")
@dataclass(frozen=True)
class RepresentationSupervisionConfig(ObjectiveConfig):
    """Supervised features of latents, for understanding tasks (as in F3-Tokenizer, arXiv 2606.06357).

    Attributes:
        supervisions: supervisions of the features, by the names that `weights` uses.
        weights: weight of the loss of each supervision.
    """

    needs_codec: ClassVar[bool] = True
    model_roles: ClassVar[tuple[str, ...]] = ("representation_model",)

    supervisions: dict[str, Config] = field(default_factory=_default_supervisions, metadata={"roles": ("supervision",)})
    weights: dict[str, NonNegative] = field(default_factory=lambda: {"rq": 1.0, "llm": 1.0})

    def build(self, *, model: RepresentationModel, codec: Frozen) -> "RepresentationSupervision":
        """Build the objective of `model`, which was built on `codec`.

        Raises:
            PartitaError: the model lacks a part that a supervision needs, or losses and weights do not match.
        """
        parts = {
            "latent_spec": model.codec.latent_spec,
            "representation": model.encoder,
            "adapter": model.adapter,
            "language_model": model.language_model,
        }
        supervisions = {name: config.build(**parts) for name, config in self.supervisions.items()}
        return RepresentationSupervision(model=model, supervisions=supervisions, weights=self.weights)

    @classmethod
    def example(cls) -> Self:
        """One tiny supervision that needs no texts."""
        return cls({"rq": RQMTPConfig.example()}, {"rq": 1.0})


class RepresentationSupervision(Objective):
    """Training of a representation encoder and its adapter on latents, stored or encoded on the fly.

    See `RepresentationSupervisionConfig`. The codec and the language model are frozen. Metrics are logged as
    `SUPERVISION_METRIC`.
    """

    phases = ("generator",)
    model: RepresentationModel

    def __init__(
        self, *, model: RepresentationModel, supervisions: Mapping[str, Supervision], weights: Mapping[str, float]
    ) -> None:
        """Wrap `model`; arguments as in `RepresentationSupervisionConfig`.

        Raises:
            PartitaError: there is no supervision, or losses and weights do not match.
        """
        super().__init__()
        if not supervisions:
            raise PartitaError("objective.supervisions is empty; add at least one supervision")
        check_weights(set(supervisions), weights)
        self.model, self.weights = model, dict(weights)
        self.supervisions = nn.ModuleDict(supervisions)
        self.requires = frozenset({SOURCE, "audio_lengths", "layout"})
        if any(supervision.needs_text for supervision in supervisions.values()):
            self.requires |= {"prompt", "answer"}
        self.crop_multiple = self.codec.latent_spec.hop

    @property
    def codec(self) -> Codec:
        """Frozen codec that the model is built on; see `Objective`."""
        return self.model.codec

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """Compute the only phase; see `Objective`."""
        values = self.model.normalize(latents_of(batch, self.codec))
        frames = tokens_of(batch, self.codec.latent_spec) // self.codec.latent_spec.tokens_per_frame
        inputs = SupervisionInput(
            self.model.encoder(values), values, frames.to(values.device), batch.get("prompt"), batch.get("answer")
        )
        terms: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, supervision in self.supervisions.items():
            output = supervision(inputs)
            terms[name] = output.loss
            metrics |= {f"{name}_{metric}": value for metric, value in output.metrics.items()}
        losses = {name: upcast(term.detach()) for name, term in terms.items()}
        return StepOutput(weighted_sum(terms, self.weights), losses, metrics, None)

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Parameters of the encoder, the adapter and the supervisions."""
        return trainable_group(self)
