"""Supervision through a frozen language model, as in F3-Tokenizer (arXiv 2606.06357).

The sequence of prompt, audio, separator and answer is that of the transcription task of X-ARES (arXiv 2505.16369).
"""

from typing import Any

import torch
from partita_core import PartitaError, config_of, length_mask, process_mean, register, upcast
from torch import Tensor, nn
from torch.nn import functional as F

from .language_model import FrozenLanguageModel, padded
from .supervision import Supervision, SupervisionInput, SupervisionOutput

_NO_TARGET = -100


@register("supervision/frozen_llm")
class FrozenLLM(Supervision):
    """Cross-entropy of the text that describes the audio, predicted by a frozen language model from the features.

    The loss is the mean over all tokens of the answers of a batch, the end token of each answer included. Gradients
    pass through the language model to the adapter and the features. The adapter belongs to the model that is trained
    and is not in the state dict of the supervision. The metrics are `cross_entropy` and `token_accuracy`; a batch
    without any text has a loss of zero and no metrics.

    Args:
        adapter: map from features to the embeddings of the language model, as `SwiGLUAdapter`.
        language_model: language model that answers.

    Raises:
        PartitaError: there is no adapter, or no language model.

    Example:
        >>> language_model = FrozenLanguageModel("Qwen/Qwen2.5-0.5B")
        >>> adapter = SwiGLUAdapter(encoder.width, language_model.hidden_size)
        >>> supervision = FrozenLLM(adapter, language_model)
        >>> inputs = SupervisionInput(encoder(latents), latents, frames, prompts=["What is it?"], answers=["a dog"])
        >>> supervision(inputs).loss.backward()
    """

    needs_text = True

    def __init__(self, adapter: nn.Module | None, language_model: FrozenLanguageModel | None) -> None:
        super().__init__()
        if adapter is None or language_model is None:
            missing = "adapter" if adapter is None else "language model"
            raise PartitaError(
                f"supervision/frozen_llm has no {missing}; set `adapter` and `language_model` of the model"
            )
        object.__setattr__(self, "adapter", adapter)
        self.language_model = language_model

    adapter: Any

    def forward(self, inputs: SupervisionInput) -> SupervisionOutput:
        """Compute loss and metrics of a batch, without the items that have no answer.

        Raises:
            PartitaError: the batch has no texts at all.
        """
        if inputs.answers is None:
            raise PartitaError("supervision/frozen_llm needs texts, and the data has none; add texts, or remove it")
        audio, counts = embed_audio(self.adapter, inputs.features, inputs.frames)
        items = [i for i, answer in enumerate(inputs.answers) if answer]
        if not items:
            zero = upcast(audio).sum() * 0
            return SupervisionOutput(process_mean(zero, torch.zeros_like(zero)), {})  # other processes may have texts
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
        """Logits and target ids, from the first position on that predicts a token of an answer."""
        model = self.language_model
        device = questions[0].device
        ids = [torch.tensor(answer, dtype=torch.int64, device=device) for answer in answers]
        embeds, mask = padded([torch.cat([question, model.embed(row)]) for question, row in zip(questions, ids)])
        targets = torch.full(mask.shape, _NO_TARGET, dtype=torch.int64, device=device)
        for row, (question, answer) in enumerate(zip(questions, ids)):
            begin = len(question) - 1
            targets[row, begin : begin + len(answer)] = answer
            targets[row, begin + len(answer)] = model.eos_id
        last = embeds.shape[1] - min(len(question) for question in questions) + 1
        return upcast(model(embeds, mask, last=last)), targets[:, -last:]


def embed_audio(adapter: Any, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Embed features for a language model, unaffected by their padding.

    Args:
        adapter: map from features to embeddings, with the attribute `stack`: frames per embedding.
        features: `(batch, frames, width)`.
        frames: `(batch,)` int64 valid frames per item.

    Returns:
        Embeddings `(batch, ceil(frames / stack), hidden_size)`, and the number `(batch,)` of valid ones per item.
    """
    frames = frames.to(features.device)
    inside = length_mask(frames, features.shape[1]).unsqueeze(-1)
    return adapter(torch.where(inside, features, 0)), -(-frames // adapter.stack)


FrozenLLMConfig = config_of(FrozenLLM)
