"""Latent generation: training of a language model on the latents or codes of a frozen codec."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from partita_core import Codec, Frozen, PartitaError, StepOutput, process_mean, register, upcast
from partita_core.ranges import NonNegative, Proportion
from torch import Tensor
from torch.nn import functional as F

from partita.data import Batch
from partita.generation import Generator

from .latent_batches import CODES, SOURCE, codes_of, latents_of
from .objective import Objective, ObjectiveConfig, TrainState, check_weights, trainable_group, weighted_sum


def _default_weights() -> dict[str, float]:
    return {"latents": 1.0, "stop": 1.0}


@register("objective/latent_generation")
@dataclass(frozen=True)
class LatentGenerationConfig(ObjectiveConfig):
    """Prediction of the next latents from those before and a text (as in F3-Tokenizer, arXiv 2606.06357).

    The text is the `answer` of the batch, a description of the audio; an item without one is unconditional.

    Attributes:
        weights: weights of "latents" (the error of the velocity, or the cross-entropy of the codes) and "stop", which
            is ignored for a model without a stop head.
        drop: probability of leaving out the text of an item, for classifier-free guidance.
    """

    needs_codec: ClassVar[bool] = True
    model_roles: ClassVar[tuple[str, ...]] = ("generator",)

    weights: dict[str, NonNegative] = field(default_factory=_default_weights)
    drop: Proportion = 0.1

    def build(self, *, model: Generator, codec: Frozen) -> "LatentGeneration":
        """Build the objective of a generator.

        Raises:
            PartitaError: losses and weights do not match, or the generator was not built on `codec`.
        """
        if codec.module is not model.base.module:
            raise PartitaError("the generator was built on another codec than the one given for training; pass its own")
        weights = {name: weight for name, weight in self.weights.items() if name != "stop" or model.stop is not None}
        return LatentGeneration(model, weights=weights, drop=self.drop)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class LatentGeneration(Objective):
    """Training of the language model and the head of a generator; the codec is frozen.

    The stop head is trained on detached states, so that it does not affect the rest: its target is 1 for the state
    after the last frame of a recording that ends within its crop, and 0 for all states before.
    """

    phases = ("generator",)

    def __init__(self, model: Generator, *, weights: dict[str, float], drop: float) -> None:
        """Wrap `model`; arguments as in `LatentGenerationConfig`.

        Raises:
            PartitaError: losses and weights do not match.
        """
        super().__init__()
        self.model, self.weights, self.drop = model, dict(weights), drop
        check_weights({"latents", *(("stop",) if model.stop is not None else ())}, self.weights)
        self.requires = frozenset({CODES if model.head.of_codes else SOURCE, "audio_lengths", "layout"})
        self.crop_multiple = model.codec.latent_spec.hop

    def forward(self, batch: Batch, state: TrainState, phase: str) -> StepOutput:
        """Compute the only phase; see `Objective`."""
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
        """Frozen codec that the model is built on; see `Objective`."""
        return self.model.codec

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Parameters of the generator."""
        return trainable_group(self.model)

    def _texts(self, batch: Batch, count: int) -> Sequence[str]:
        """Texts of the items, some of which are left out in training."""
        texts = batch.get("answer", [""] * count)
        if not self.training:
            return texts
        dropped = (torch.rand(count) < self.drop).tolist()
        return ["" if drop else text for text, drop in zip(texts, dropped)]

    def _stop(self, states: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy, with equal total weight on ends and on all other positions, and the accuracy."""
        assert self.model.stop is not None
        logits = upcast(self.model.stop(states.detach()).squeeze(-1))
        steps = self.model.head.steps(frames)
        position = torch.arange(logits.shape[1], device=logits.device)
        end = (position == steps[:, None]).to(logits.dtype)
        inside = (position < steps[:, None]).to(logits.dtype)
        error = F.binary_cross_entropy_with_logits(logits, end, reduction="none")
        classes = torch.stack([end, inside])
        means = process_mean((error * classes).sum((1, 2)), classes.sum((1, 2)))
        correct = ((logits > 0) == (end > 0)).to(logits.dtype) * (end + inside)
        return means.mean(), (correct.sum() / (end + inside).sum()).detach()
