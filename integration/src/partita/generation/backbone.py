"""Language models that generators are built on: causal models of `transformers` with an extended vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from partita_core import ChannelLayout, Config, PartitaError, first_line, register, short_repr
from partita_core.ranges import Heads, Layers, Proportion, Width
from torch import Tensor, nn
from torch.nn import functional as F

# Start ids after those of the text, one per channel layout: they end the prompt and begin audio of that layout.
_STARTS = len(ChannelLayout)

# Maximum number of positions of new models, and of models that do not declare one.
_MAX_POSITIONS = 2**15


class Backbone(nn.Module):
    """A causal language model whose input is a prompt followed by embeddings of audio.

    Its vocabulary is the tokenizer's, a start id per channel layout, and the ids of the head. It has no output layer if
    the head predicts no ids.

    Args:
        model: model of transformers, with embeddings for the whole vocabulary.
        tokenizer: its tokenizer.
        own_ids: number of ids of the head, the last ones.

    Attributes:
        width: width of embeddings and states.
        first_id: first id of the head.
        positions: maximum length of prompt and audio together.
    """

    def __init__(self, model: Any, tokenizer: Any, *, own_ids: int) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.width: int = model.config.hidden_size
        self.first_id: int = model.config.vocab_size - own_ids
        self.positions: int = getattr(model.config, "max_position_embeddings", None) or _MAX_POSITIONS

    def forward(self, embeddings: Tensor, mask: Tensor, cache: Any = None) -> Tensor:
        """Compute states with causal attention.

        Args:
            embeddings: `(batch, length, width)`.
            mask: 0 for padding, which is on the left, `(batch, past + length)`, including the positions in the cache.
            cache: cache of `transformers` that is extended; None for none.

        Returns:
            States `(batch, length, width)`.
        """
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
        kept = {"use_cache": False} if cache is None else {"use_cache": True, "past_key_values": cache}
        output = self.model.base_model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, return_dict=True, **kept
        )
        return output.last_hidden_state

    def embed(self, ids: Tensor) -> Tensor:
        """Embed ids of any shape as `(..., width)`."""
        return self.model.get_input_embeddings()(ids)

    def logits(self, states: Tensor, ids: range) -> Tensor:
        """Logits `(..., len(ids))` of a range of ids."""
        output = self.model.get_output_embeddings()
        rows = slice(ids.start, ids.stop)
        return F.linear(states, output.weight[rows], None if output.bias is None else output.bias[rows])

    def read(self, prompts: Sequence[str], layout: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenize prompts, append the start id of the layout, and pad on the left.

        Args:
            prompts: text prompts, empty for none.
            layout: channel layout per item, `(batch,)` int64.

        Returns:
            Ids `(batch, length)` int64, and a mask of the same shape, 0 for padding, on the model's device.
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
    """A new language model on bytes: `LlamaForCausalLM` with `ByT5Tokenizer`, which needs no files.

    Attributes:
        width: width of the states.
        layers: transformer layers.
        heads: attention heads.
        mlp_width: width of the gated MLPs.
        dropout: dropout rate of the attention.
    """

    width: Width = 512
    layers: Layers = 8
    heads: Heads = 8
    mlp_width: Width = 1536
    dropout: Proportion = 0.0

    def __post_init__(self) -> None:
        """Check that the heads divide the width into even parts."""
        super().__post_init__()
        if self.width % (2 * self.heads):
            multiple = 2 * self.heads
            raise PartitaError(f"width is {self.width}; for {self.heads} heads it must be a multiple of {multiple}")

    def build(self, *, own_ids: int, output: bool) -> Backbone:
        """Build the model with `own_ids` ids for the head, and an output layer if `output`."""
        from transformers import ByT5Tokenizer, LlamaConfig

        tokenizer = ByT5Tokenizer()
        settings = LlamaConfig(
            vocab_size=len(tokenizer) + _STARTS + own_ids,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=_MAX_POSITIONS,
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
    """A pretrained language model of `transformers`: a folder, or a name on the hub.

    Attributes:
        name: folder or name, with weights as safetensors.
        settings: settings of the architecture in a saved generator, which has weights of its own: only the tokenizer is
            then read from `name`, unless it is ByT5's, which needs no files. Empty to load the weights of `name`.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, *, own_ids: int, output: bool) -> Backbone:
        """Load the model, with `own_ids` more ids for the head, and an output layer if `output`.

        Raises:
            PartitaError: there is no such model.
        """
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

        try:
            tokenizer = self._tokenizer()
            if self.settings:
                settings = AutoConfig.for_model(**_without_code(self.settings))
                return Backbone(_empty(settings, output), tokenizer, own_ids=own_ids)
            kind = AutoModelForCausalLM if output else AutoModel
            with torch.device("cpu"):  # even if the other parts are first built on the meta device; see `build_for`
                model = kind.from_pretrained(
                    self.name, use_safetensors=True, trust_remote_code=False, dtype=torch.get_default_dtype()
                )
                vocabulary = max(len(tokenizer), model.config.vocab_size)
                model.resize_token_embeddings(vocabulary + _STARTS + own_ids, mean_resizing=False)
        except (OSError, ValueError, KeyError) as error:
            raise PartitaError(f"cannot load the language model {self.name!r}: {first_line(error)}") from None
        return Backbone(model, tokenizer, own_ids=own_ids)

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer, ByT5Tokenizer

        bytewise = self.settings.get("tokenizer_class") == ByT5Tokenizer.__name__
        return ByT5Tokenizer() if bytewise else AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)

    @classmethod
    def example(cls) -> Self:
        """An instance that names a folder, which need not exist."""
        return cls("folder")


def self_contained(config: Config, backbone: Backbone) -> Config:
    """The Config with the settings of the architecture, so that the backbone can be rebuilt without the weights."""
    if not isinstance(config, PretrainedBackboneConfig):
        return config
    settings = backbone.model.config.to_diff_dict()
    settings |= {"model_type": backbone.model.config.model_type, "vocab_size": backbone.model.config.vocab_size}
    settings = _without_code(settings | {"tokenizer_class": type(backbone.tokenizer).__name__})
    return replace(config, settings=settings)


def _without_code(settings: Any) -> Any:
    """Settings without the names of code and its location, recursively for nested models."""
    if not isinstance(settings, dict):
        return settings
    return {key: _without_code(item) for key, item in settings.items() if key not in ("auto_map", "_name_or_path")}


def _empty(settings: Any, output: bool) -> Any:
    """A model with randomly initialized weights."""
    from transformers import AutoModel, AutoModelForCausalLM

    kind = AutoModelForCausalLM if output else AutoModel
    return kind.from_config(settings, trust_remote_code=False, dtype=torch.get_default_dtype())


def check_prompts(prompts: Any) -> None:
    """Check that prompts are a list of texts; a single text would be taken for a list of characters.

    Raises:
        PartitaError: they are not, or a text is not valid UTF-8.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise PartitaError(f"prompts are a {type(prompts).__name__}; pass a list of texts, one per item")
    for text in prompts:
        if not isinstance(text, str):
            raise PartitaError(f"a prompt is {short_repr(text)}; it must be a text, empty for none")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise PartitaError(f"the prompt {short_repr(text)} is not valid UTF-8") from None
