"""Representation supervision: an encoder on the latents of a frozen codec, taught by what is asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from partita_core import Codec, Config, Frozen, PartitaError, StepOutput, register, upcast
from partita_core.ranges import NonNegative
from partita_representation import FrozenLLMConfig, RepresentationModel, RQMTPConfig, Supervision, SupervisionInput
from torch import Tensor, nn

from partita.data import Batch

from .latent_batches import SOURCE, latents_of, tokens_of
from .objective import Objective, TrainState, check_weights, weighted_sum


def _default_supervisions() -> dict[str, Config]:
    return {"rq": RQMTPConfig(), "llm": FrozenLLMConfig()}


@register("objective/representation_supervision")
@dataclass(frozen=True)
class RepresentationSupervisionConfig(Config):
    """Features of latents, for understanding: as in F3-Tokenizer (arXiv 2606.06357).

    Attributes:
        supervisions: what teaches, by the names that `weights` uses.
        weights: of the loss of each.
    """

    supervisions: dict[str, Config] = field(default_factory=_default_supervisions, metadata={"roles": ("supervision",)})
    weights: dict[str, NonNegative] = field(default_factory=lambda: {"rq": 1.0, "llm": 1.0})

    def build(self, *, model: RepresentationModel, codec: Frozen) -> "RepresentationSupervision":
        """Builds the objective around `model`, which was built on `codec`.

        Raises:
            PartitaError: a supervision lacks what it needs of the model, or losses and weights do not match.
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
        """Without texts."""
        return cls({"rq": RQMTPConfig.example()}, {"rq": 1.0})


class RepresentationSupervision(Objective):
    """A representation encoder, and its adapter to a language model, on latents that are stored or made on the fly.

    See `RepresentationSupervisionConfig`. The codec and the language model are frozen. Each supervision's metrics are
    logged behind its name.
    """

    phases = ("generator",)
    model: RepresentationModel

    def __init__(
        self, *, model: RepresentationModel, supervisions: Mapping[str, Supervision], weights: Mapping[str, float]
    ) -> None:
        """Wraps `model`.

        Raises:
            PartitaError: nothing teaches, or losses and weights do not match.
        """
        super().__init__()
        if not supervisions:
            raise PartitaError("nothing supervises the representation; name at least one of objective.supervisions")
        check_weights(set(supervisions), weights)
        self.model, self.weights = model, dict(weights)
        self.supervisions = nn.ModuleDict(supervisions)
        self.requires = frozenset({SOURCE, "audio_lengths", "layout"})
        if any(supervision.needs_text for supervision in supervisions.values()):
            self.requires |= {"prompt", "answer"}
        self.crop_multiple = self.codec.latent_spec.hop

    @property
    def codec(self) -> Codec:
        """The frozen one below."""
        return self.model.codec

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """The one phase; see `Objective`."""
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
        """Encoder, adapter, and what supervisions learn for themselves."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]
