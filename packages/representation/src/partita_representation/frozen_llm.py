"""Supervision through a frozen language model, as in F3-Tokenizer (arXiv 2606.06357).

The sequence of prompt, audio, separator and answer is that of the transcription task of X-ARES (arXiv 2505.16369).
"""

from dataclasses import dataclass
from typing import Any

import torch
from partita_core import (
    Config,
    LatentSpec,
    PartitaError,
    RepresentationEncoder,
    length_mask,
    process_mean,
    register,
    upcast,
)
from torch import Tensor, nn
from torch.nn import functional as F

from .language_model import FrozenLanguageModel, padded
from .supervision import Supervision, SupervisionInput, SupervisionOutput

_NO_TARGET = -100


@register("supervision/frozen_llm")
@dataclass(frozen=True)
class FrozenLLMConfig(Config):
    """The text that belongs to audio, asked of a frozen language model that hears the features."""

    def build(
        self,
        *,
        latent_spec: LatentSpec,
        representation: RepresentationEncoder,
        adapter: nn.Module | None = None,
        language_model: FrozenLanguageModel | None = None,
    ) -> "FrozenLLM":
        """Builds it for an adapter from features to the embeddings of a language model.

        Raises:
            PartitaError: there is no adapter, or no language model.
        """
        if adapter is None or language_model is None:
            raise PartitaError("supervision through a language model needs one, and an adapter; name both in the model")
        return FrozenLLM(adapter=adapter, language_model=language_model)

    @classmethod
    def example(cls) -> "FrozenLLMConfig":
        """As it is."""
        return cls()


class FrozenLLM(Supervision):
    """Cross-entropy of the answers' tokens: the mean over all tokens of a batch, the end of each answer included.

    Gradients reach the features and the adapter, through the language model. The adapter is another's, the model's:
    it is not in the state dict here. The metrics are `cross_entropy` and `token_accuracy`; a batch without any text has
    neither, and a loss of zero.
    """

    needs_text = True

    def __init__(self, *, adapter: nn.Module, language_model: FrozenLanguageModel) -> None:
        """Takes both; see `FrozenLLMConfig`."""
        super().__init__()
        object.__setattr__(self, "adapter", adapter)
        self.language_model = language_model

    adapter: Any

    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """See `Supervision`. Items without an answer are left aside.

        Raises:
            PartitaError: the batch brings no texts at all.
        """
        if inputs.answers is None:
            raise PartitaError("supervision through a language model needs texts, and the data brings none")
        audio, counts = embed_audio(self.adapter, inputs.features, inputs.frames)
        items = [i for i, answer in enumerate(inputs.answers) if answer]
        if not items:
            nothing = upcast(audio).sum() * 0
            return SupervisionOutput(process_mean(nothing, torch.zeros_like(nothing)), {})  # others may have texts
        prompts = inputs.prompts or [""] * len(inputs.answers)
        questions = self.language_model.questions([prompts[i] for i in items], audio[items], counts[items])
        answers = self.language_model.tokenize([inputs.answers[i] for i in items])
        logits, targets = self._predict(questions, answers)
        total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_NO_TARGET, reduction="sum")
        counted = targets != _NO_TARGET
        loss = process_mean(total, counted.sum())
        hits = (logits.detach().argmax(-1) == targets) & counted
        return SupervisionOutput(loss, {"cross_entropy": loss.detach(), "token_accuracy": hits.sum() / counted.sum()})

    def _predict(self, questions: list[Tensor], answers: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Logits and what they should say, from the first position on at which an answer begins."""
        model = self.language_model
        device = questions[0].device
        ids = [torch.tensor(answer, dtype=torch.int64, device=device) for answer in answers]
        embeds, mask = padded([torch.cat([question, model.embed(row)]) for question, row in zip(questions, ids)])
        targets = torch.full(mask.shape, _NO_TARGET, dtype=torch.int64, device=device)
        for row, (question, answer) in enumerate(zip(questions, ids)):
            begin = len(question) - 1
            targets[row, begin : begin + len(answer)] = answer
            targets[row, begin + len(answer)] = model.end
        last = embeds.shape[1] - min(len(question) for question in questions) + 1
        return upcast(model(embeds, mask, last=last)), targets[:, -last:]


def embed_audio(adapter: Any, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of audio, and how many of them belong to each item; what pads features does not reach these.

    Args:
        adapter: from features to embeddings; `stack` frames make one.
        features: `(batch, frames, width)`.
        frames: `(batch,)` int64, frames of each item.
    """
    frames = frames.to(features.device)
    inside = length_mask(frames, features.shape[1]).unsqueeze(-1)
    return adapter(torch.where(inside, features, 0)), -(-frames // adapter.stack)
