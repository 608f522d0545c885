"""Latent generation: a language model on the latents, or codes, of a frozen codec."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from partita_core import Codec, Config, Frozen, PartitaError, StepOutput, process_mean, register, upcast
from partita_core.ranges import NonNegative, Proportion
from torch import Tensor
from torch.nn import functional as F

from partita.data import Batch
from partita.generation import Generator

from .latent_batches import CODES, SOURCE, codes_of, latents_of
from .objective import Objective, TrainState, check_weights, weighted_sum


def _default_weights() -> dict[str, float]:
    return {"latents": 1.0, "stop": 1.0}


@register("objective/latent_generation")
@dataclass(frozen=True)
class LatentGenerationConfig(Config):
    """The next latents of those before, and of a text (as in F3-Tokenizer, arXiv 2606.06357).

    The text is the batch's `answer`, what is to be said of the audio; an item without one has no condition.

    Attributes:
        weights: of "latents" (the velocity's error, or the codes' cross-entropy) and of "stop", which a model that
            does not learn to stop does not have.
        drop: probability that an item's text is left out, for guidance.
    """

    weights: dict[str, NonNegative] = field(default_factory=_default_weights)
    drop: Proportion = 0.1

    def build(self, *, model: Generator, codec: Frozen) -> "LatentGeneration":
        """Builds the objective around a generator.

        Raises:
            PartitaError: losses and weights do not match, or `codec` is not what the generator was built on.
        """
        if codec.module is not model.base.module:
            raise PartitaError("the generator was built on another codec than it is to be trained on")
        weights = {name: weight for name, weight in self.weights.items() if name != "stop" or model.stop is not None}
        return LatentGeneration(model, weights=weights, drop=self.drop)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class LatentGeneration(Objective):
    """Trains the language model and the head of a generator; the codec stays as it is.

    Stopping is learned from states that are detached, so that it takes nothing from the rest: the state behind the
    last frame of a recording that ends within its crop says that it is over, all before that it is not.
    """

    phases = ("generator",)

    def __init__(self, model: Generator, *, weights: dict[str, float], drop: float) -> None:
        """Wraps `model`.

        Raises:
            PartitaError: losses and weights do not match.
        """
        super().__init__()
        self.model, self.weights, self.drop = model, dict(weights), drop
        check_weights({"latents", *(("stop",) if model.stop is not None else ())}, self.weights)
        self.requires = frozenset({CODES if model.head.of_codes else SOURCE, "audio_lengths", "layout"})
        self.crop_multiple = model.codec.latent_spec.hop

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """The only phase; see `Objective`."""
        target = codes_of(batch, self.codec) if self.model.head.of_codes else latents_of(batch, self.codec)
        frames = -(-batch["audio_lengths"].to(target.device) // self.codec.latent_spec.hop)
        texts = self._texts(batch, len(frames))
        output = self.model(target, frames, texts, batch["layout"])
        terms, metrics = {"latents": output.head.loss}, dict(output.head.metrics)
        if self.model.stop is not None:
            terms["stop"], metrics["stop_accuracy"] = self._stop(output.states, frames)
        if "answer" in batch:
            metrics["with_text"] = torch.tensor(sum(map(bool, batch["answer"])) / len(frames), device=frames.device)
        losses = {name: upcast(term.detach()) for name, term in terms.items()}
        return StepOutput(weighted_sum(terms, self.weights), losses, metrics, None)

    @property
    def codec(self) -> Codec:
        """The one that the model is built on; see `Objective`."""
        return self.model.codec

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """The generator's parameters."""
        return [{"params": [parameter for parameter in self.model.parameters() if parameter.requires_grad]}]

    def _texts(self, batch: Batch, count: int) -> Sequence[str]:
        """The items' texts, some left out while training."""
        texts = batch.get("answer", [""] * count)
        if not self.training:
            return texts
        left_out = (torch.rand(count) < self.drop).tolist()
        return ["" if out else text for text, out in zip(texts, left_out)]

    def _stop(self, states: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy, with as much weight on the ends as on all that is before them; and the share that is right."""
        assert self.model.stop is not None
        logits = upcast(self.model.stop(states.detach()).squeeze(-1))
        steps = self.model.head.steps(frames)
        place = torch.arange(logits.shape[1], device=logits.device)
        over, going = (place == steps[:, None]).to(logits.dtype), (place < steps[:, None]).to(logits.dtype)
        error = F.binary_cross_entropy_with_logits(logits, over, reduction="none")
        kinds = torch.stack([over, going])
        means = process_mean((error * kinds).sum((1, 2)), kinds.sum((1, 2)))
        right = ((logits > 0) == (over > 0)).to(logits.dtype) * (over + going)
        return means.mean(), (right.sum() / (over + going).sum()).detach()
