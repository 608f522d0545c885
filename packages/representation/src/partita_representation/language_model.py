"""Frozen causal language models from the transformers library."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from partita_core import Frozen, PartitaError, TypedModule, first_line, length_mask
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

SEPARATOR = "\n"
"""Text between the audio and the answer."""


class FrozenLanguageModel(TypedModule):
    """Language model that answers prompts about audio and is never trained.

    A question is the tokens of the prompt (after the beginning-of-sequence token, if the model has one), embeddings of
    audio, and the separator; an answer is its tokens and the end token. Gradients pass through the model without
    accumulating in it: `Frozen` keeps it in eval mode, in the dtype it was loaded in.

    Args:
        name: folder, or repository on the Hugging Face hub.
        sha256: expected hash of the weights, as in the attribute `sha256`; None to accept any.
        dtype: dtype of the weights.

    Attributes:
        name: folder or repository that the model was loaded from.
        hidden_size: width of its embeddings.
        eos_id: id of the end token of an answer.

    Raises:
        PartitaError: the model cannot be loaded (only safetensors are, and never code), or has other weights.

    Example:
        >>> model = FrozenLanguageModel("Qwen/Qwen2.5-0.5B")
        >>> audio, counts = embed_audio(adapter, features, frames)
        >>> questions = model.questions(["What is it?"] * len(audio), audio, counts)
        >>> model.generate(*padded(questions), max_new_tokens=16)
        ['a dog']
    """

    def __init__(self, name: str | Path, sha256: str | None = None, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        model, self.tokenizer = _load(str(name), dtype)
        self.name = str(name)
        self.frozen = Frozen(model)
        self.hidden_size: int = model.get_input_embeddings().embedding_dim
        if self.tokenizer.eos_token_id is None:
            raise PartitaError(f"the tokenizer of {name} has no end token to end answers with; choose another model")
        self.eos_id: int = self.tokenizer.eos_token_id
        self._bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        if sha256 not in (None, self.sha256):
            raise PartitaError(
                f"the weights of the language model {name} have the hash {self.sha256}, and {sha256} is expected; "
                "use the version that the model was trained with"
            )

    @property
    def sha256(self) -> str:
        """First 16 hex digits of the hash of the weights."""
        return self.frozen.sha256

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, without the special tokens that the tokenizer would add."""
        return [self.tokenizer(text, add_special_tokens=False).input_ids for text in texts]

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids of any shape as `(..., hidden_size)`."""
        return self._model.get_input_embeddings()(ids)

    def questions(self, prompts: Sequence[str], audio: Tensor, counts: Tensor) -> list[Tensor]:
        """Embeddings `(length, hidden_size)` of prompt, audio and separator, for each item.

        Args:
            prompts: one text per item.
            audio: embeddings `(batch, n, hidden_size)`.
            counts: `(batch,)` int64 valid embeddings per item.
        """
        separator = self._embed_ids(self.tokenize([SEPARATOR])[0])
        begins = [self._embed_ids(self._bos + ids) for ids in self.tokenize(prompts)]
        valid = [item[:count].to(separator.dtype) for item, count in zip(audio, counts.tolist())]
        return [torch.cat([begin, item, separator]) for begin, item in zip(begins, valid)]

    def forward(self, embeds: Tensor, mask: Tensor, *, last: int = 0) -> Tensor:
        """Compute the logits of the next tokens.

        Args:
            embeds: `(batch, length, hidden_size)`.
            mask: `(batch, length)`, 0 for padding, which is on the right.
            last: number of final positions to compute logits for; 0 for all.

        Returns:
            `(batch, last, vocabulary)`.
        """
        return self._model(inputs_embeds=embeds, attention_mask=mask, use_cache=False, logits_to_keep=last).logits

    @torch.no_grad()
    def generate(self, embeds: Tensor, mask: Tensor, *, max_new_tokens: int) -> list[str]:
        """Generate one text per item by greedy decoding.

        Args:
            embeds: `(batch, length, hidden_size)`.
            mask: `(batch, length)`, 0 for padding, which is on the right.
            max_new_tokens: maximum number of tokens per answer.
        """
        # New tokens are appended on the right, so the padding has to move to the left.
        at = torch.arange(mask.shape[1], device=mask.device) - (mask.shape[1] - mask.sum(1, keepdim=True))
        embeds = embeds.gather(1, at.clamp(min=0).unsqueeze(-1).expand_as(embeds))
        pad = self.eos_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        ids = self._model.generate(
            inputs_embeds=embeds,
            attention_mask=(at >= 0).long(),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self.eos_id,
            pad_token_id=pad,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    @property
    def _model(self) -> Any:
        return self.frozen.module

    def _embed_ids(self, ids: list[int]) -> Tensor:
        return self.embed(torch.tensor(ids, dtype=torch.int64, device=self._model.device))


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Batch of sequences `(length, width)`, padded with zeros on the right, and its mask `(batch, length)` int64."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    batch = pad_sequence(list(rows), batch_first=True)
    return batch, length_mask(lengths, batch.shape[1]).long()


def _load(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # On the CPU even inside a meta-device context, in which models are built to check a file of weights.
        with warnings.catch_warnings(), torch.device("cpu"):
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # transformers raises many types of exception
        raise PartitaError(f"the language model {name!r} could not be loaded: {first_line(error)}") from None
    finally:
        if bars:
            logging.enable_progress_bar()
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:  # transformers would initialize these at random
        raise PartitaError(f"the language model {name!r} lacks {len(missing)} weights, the first is {missing[0]}")
    return model, tokenizer
