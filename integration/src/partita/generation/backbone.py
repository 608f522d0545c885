"""The language model that generates: any causal one of `transformers`, with a few more ids in its vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from partita_core import ChannelLayout, Config, PartitaError, first_line, register, short_repr
from partita_core.ranges import Heads, Layers, Proportion, Width
from torch import Tensor, nn
from torch.nn import functional as F

# Ids behind the text's own, one for each channel layout: with it a prompt ends and audio of that layout begins.
_STARTS = len(ChannelLayout)

# Of a language model of one's own, and of one that does not say how many it has.
_POSITIONS = 2**15


class Backbone(nn.Module):
    """A causal language model that reads a prompt, then embeddings of audio.

    Its vocabulary is the tokenizer's, a start for every channel layout, and what the head asks for. It is held
    without its output layer where the head predicts no ids.

    Attributes:
        width: of embeddings and states.
        first_id: of the ids that the head asked for.
        positions: how long prompt and audio may be together.
    """

    def __init__(self, model: Any, tokenizer: Any, *, own_ids: int) -> None:
        """Takes the model, its embeddings and output as large as the vocabulary, and `own_ids` for the head."""
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.width: int = model.config.hidden_size
        self.first_id: int = model.config.vocab_size - own_ids
        self.positions: int = getattr(model.config, "max_position_embeddings", None) or _POSITIONS

    def forward(self, embeddings: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
        """States of embeddings, each of which sees those before it.

        Args:
            embeddings: `(batch, length, width)`.
            mask: `(batch, seen + length)`, 0 on the padding, which is to the left; of what the cache holds as well.
            cache: of `transformers`, which the new keys and values are added to; None to keep none.

        Returns:
            `(batch, length, width)`.
        """
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
        kept = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
        output = self.model.base_model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, return_dict=True, **kept
        )
        return output.last_hidden_state

    def embed(self, ids: Tensor) -> Tensor:
        """Ids of any shape to `(..., width)`."""
        return self.model.get_input_embeddings()(ids)

    def logits(self, states: Tensor, ids: range) -> Tensor:
        """Logits `(..., len(ids))` of some ids alone."""
        output = self.model.get_output_embeddings()
        rows = slice(ids.start, ids.stop)
        return F.linear(states, output.weight[rows], None if output.bias is None else output.bias[rows])

    def read(self, prompts: Sequence[str], layout: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts, each with the start of its layout behind it, and padded to the left.

        Args:
            prompts: texts; an empty one for none.
            layout: `(batch,)` int64.

        Returns:
            Ids `(batch, length)` int64 and the mask, 0 on the padding, as much; on the model's device.
        """
        starts = self.first_id - _STARTS + layout.cpu()
        texts = [self.tokenizer(text, add_special_tokens=False).input_ids if text else [] for text in prompts]
        length = 1 + max(len(text) for text in texts)
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, length - 1 - len(text) :] = torch.tensor([*text, int(starts[row])])
            mask[row, length - 1 - len(text) :] = 1
        device = self.model.device
        return ids.to(device), mask.to(device)


@register("language_model/llama")
@dataclass(frozen=True)
class LlamaBackboneConfig(Config):
    """A language model of one's own, on bytes: `LlamaForCausalLM` with `ByT5Tokenizer`, which needs no files.

    Attributes:
        width: of the states.
        layers: of attention and MLP.
        heads: of the attention.
        mlp_width: of the gated MLPs.
        dropout: of the attention, in training.
    """

    width: Width = 512
    layers: Layers = 8
    heads: Heads = 8
    mlp_width: Width = 1536
    dropout: Proportion = 0.0

    def __post_init__(self) -> None:
        """Refuse heads that do not divide the width into even parts."""
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise PartitaError(f"width is {self.width}; {self.heads} heads need a multiple of {2 * self.heads}")

    def build(self, *, own_ids: int, output: bool) -> Backbone:
        """Builds it with `own_ids` ids for the head, and an output layer where it predicts them."""
        from transformers import ByT5Tokenizer, LlamaConfig

        tokenizer = ByT5Tokenizer()
        settings = LlamaConfig(
            vocab_size=len(tokenizer) + _STARTS + own_ids,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=_POSITIONS,
            attention_dropout=self.dropout,
        )
        return Backbone(_empty(settings, output), tokenizer, own_ids=own_ids)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance."""
        return cls(width=16, layers=2, heads=2, mlp_width=32)


@register("language_model/pretrained")
@dataclass(frozen=True)
class PretrainedBackboneConfig(Config):
    """A language model that `transformers` has, to go on with: a folder, or a name on the hub.

    Attributes:
        name: where it is; with its weights as safetensors.
        settings: of the architecture, as a saved generator holds them: its weights are its own, and only the tokenizer
            is read from `name`, unless it is ByT5's, which needs no files. Empty to start with the weights of `name`.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, *, own_ids: int, output: bool) -> Backbone:
        """Loads it, with `own_ids` further ids for the head, and an output layer where it predicts them.

        Raises:
            PartitaError: there is none.
        """
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

        try:
            tokenizer = self._tokenizer()
            if self.settings:
                settings = AutoConfig.for_model(**_without_code(self.settings))
                return Backbone(_empty(settings, output), tokenizer, own_ids=own_ids)
            kind = AutoModelForCausalLM if output else AutoModel
            with torch.device("cpu"):  # also where the rest is built on the meta device first; see `build_for`
                model = kind.from_pretrained(
                    self.name, use_safetensors=True, trust_remote_code=False, dtype=torch.get_default_dtype()
                )
                vocabulary = max(len(tokenizer), model.config.vocab_size)
                model.resize_token_embeddings(vocabulary + _STARTS + own_ids, mean_resizing=False)
        except (OSError, ValueError, KeyError) as error:
            raise PartitaError(f"no language model {self.name!r}: {first_line(error)}") from None
        return Backbone(model, tokenizer, own_ids=own_ids)

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer, ByT5Tokenizer

        bytewise = self.settings.get("tokenizer_class") == ByT5Tokenizer.__name__
        return ByT5Tokenizer() if bytewise else AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)

    @classmethod
    def example(cls) -> Self:
        """A name; what is behind it is not there everywhere."""
        return cls("folder")


def self_contained(config: Config, backbone: Backbone) -> Config:
    """The Config with what it takes to build an empty backbone of the same shape, without the weights it came from."""
    if not isinstance(config, PretrainedBackboneConfig):
        return config
    settings = backbone.model.config.to_diff_dict()
    settings |= {"model_type": backbone.model.config.model_type, "vocab_size": backbone.model.config.vocab_size}
    settings = _without_code(settings | {"tokenizer_class": type(backbone.tokenizer).__name__})
    return replace(config, settings=settings)


def _without_code(settings: Any) -> Any:
    """Settings without what names code to run, and where it lies, in any model within the model as well."""
    if not isinstance(settings, dict):
        return settings
    return {key: _without_code(item) for key, item in settings.items() if key not in ("auto_map", "_name_or_path")}


def _empty(settings: Any, output: bool) -> Any:
    """A model with weights of its own, drawn as its architecture does."""
    from transformers import AutoModel, AutoModelForCausalLM

    kind = AutoModelForCausalLM if output else AutoModel
    return kind.from_config(settings, trust_remote_code=False, dtype=torch.get_default_dtype())


def check_prompts(prompts: Any) -> None:
    """Raise a `PartitaError` unless these are texts, one for each item; a single text would be one for each letter."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise PartitaError(f"prompts are a {type(prompts).__name__}; a list of texts is expected, one for each item")
    for text in prompts:
        if not isinstance(text, str):
            raise PartitaError(f"a prompt is {short_repr(text)}; a text is expected, or an empty one for none")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PartitaError(f"the prompt {short_repr(text)} is not UTF-8") from None
