"""A causal language model of transformers, frozen."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from partita_core import Frozen, PartitaError, first_line, length_mask
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

SEPARATOR = "\n"
"""What stands between audio and answer."""


class FrozenLanguageModel(nn.Module):
    """A language model that is asked about audio, and never trained.

    A question is the prompt's tokens (behind the model's own first token, if it has one), embeddings of audio, and the
    separator; an answer is its tokens and the model's end token. Gradients pass through the model, and leave none in
    it: it is held in `Frozen`, always in eval mode, in the dtype it was loaded in.

    Attributes:
        name: the folder or repository that it is of.
        hidden_size: width of its embeddings.
        end: the id that ends an answer.
    """

    def __init__(self, name: str | Path, sha256: str | None = None, *, dtype: torch.dtype = torch.float32) -> None:
        """Loads it on the CPU; safetensors only, and no code that comes with it.

        Args:
            name: a folder, or a repository on the hub.
            sha256: what its weights must hash to, as `self.sha256` says it; None to take them as they are.
            dtype: of its weights.

        Raises:
            PartitaError: there is none, or its weights are others.
        """
        super().__init__()
        model, self.tokenizer = _load(str(name), dtype)
        self.name = str(name)
        self.frozen = Frozen(model)
        self.hidden_size: int = model.get_input_embeddings().embedding_dim
        if self.tokenizer.eos_token_id is None:
            raise PartitaError(f"the tokenizer of {name} has no end token, which an answer ends with")
        self.end: int = self.tokenizer.eos_token_id
        self._begin = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        if sha256 not in (None, self.sha256):
            raise PartitaError(
                f"the language model {name} has the weights {self.sha256}, those of {sha256} are asked for"
            )

    @property
    def sha256(self) -> str:
        """Names its weights: the first 16 hex digits."""
        return self.frozen.sha256

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts, without any that the tokenizer would put around them."""
        return [self.tokenizer(text, add_special_tokens=False).input_ids for text in texts]

    def embed(self, ids: Tensor) -> Tensor:
        """Ids of any shape to `(..., hidden_size)`."""
        return self._model.get_input_embeddings()(ids)

    def questions(self, prompts: Sequence[str], audio: Tensor, counts: Tensor) -> list[Tensor]:
        """Prompt, audio and separator of each item, `(length, hidden_size)`.

        Args:
            prompts: texts.
            audio: embeddings `(batch, n, hidden_size)`.
            counts: `(batch,)` int64, how many of these belong to an item.
        """
        separator = self._embed_ids(self.tokenize([SEPARATOR])[0])
        begins = [self._embed_ids(self._begin + ids) for ids in self.tokenize(prompts)]
        heard = [item[:count].to(separator.dtype) for item, count in zip(audio, counts.tolist())]
        return [torch.cat([begin, item, separator]) for begin, item in zip(begins, heard)]

    def forward(self, embeds: Tensor, mask: Tensor, *, last: int = 0) -> Tensor:
        """Logits of what comes next.

        Args:
            embeds: `(batch, length, hidden_size)`.
            mask: `(batch, length)`, 0 on the padding, which is on the right.
            last: positions at the end to make logits for; 0 for all.

        Returns:
            `(batch, last, vocabulary)`.
        """
        return self._model(inputs_embeds=embeds, attention_mask=mask, use_cache=False, logits_to_keep=last).logits

    @torch.no_grad()
    def generate(self, embeds: Tensor, mask: Tensor, *, max_new_tokens: int) -> list[str]:
        """The likeliest next token, again and again, as text, until each item has ended or grown too long.

        Args:
            embeds: `(batch, length, hidden_size)`.
            mask: `(batch, length)`, 0 on the padding, which is on the right.
            max_new_tokens: of each answer.
        """
        # The next token comes behind the last one: the padding has to go to the left.
        at = torch.arange(mask.shape[1], device=mask.device) - (mask.shape[1] - mask.sum(1, keepdim=True))
        embeds = embeds.gather(1, at.clamp(min=0).unsqueeze(-1).expand_as(embeds))
        pad = self.end if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        ids = self._model.generate(
            inputs_embeds=embeds,
            attention_mask=(at >= 0).long(),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self.end,
            pad_token_id=pad,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    @property
    def _model(self) -> Any:
        return self.frozen.module

    def _embed_ids(self, ids: list[int]) -> Tensor:
        return self.embed(torch.tensor(ids, dtype=torch.int64, device=self._model.device))


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sequences `(length, width)` as one batch, with zeros on their right, and the mask `(batch, length)` int64."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    batch = pad_sequence(list(rows), batch_first=True)
    return batch, length_mask(lengths, batch.shape[1]).long()


def _load(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # Also where the model around it is built without memory, to be held against a file of weights.
        with warnings.catch_warnings(), torch.device("cpu"):
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # its exceptions are many; what counts is that the model could not be had
        raise PartitaError(f"the language model {name!r} could not be loaded: {first_line(error)}") from None
    finally:
        if bars:
            logging.enable_progress_bar()
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:  # these would be left at random
        raise PartitaError(f"the language model {name!r} lacks {len(missing)} weights, first {missing[0]}")
    return model, tokenizer
