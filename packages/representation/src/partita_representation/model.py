"""Representation models: a frozen codec, an encoder of its latents to features, and optionally a language model.

The system is F3-Tokenizer's (arXiv 2606.06357): the codec stays as it is, and what is learned reads its latents. Any
codec will do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar, Self

import torch
from partita_core import (
    Codec,
    Config,
    Frozen,
    LatentNormalizer,
    Latents,
    PartitaError,
    Precision,
    RepresentationEncoder,
    Saved,
    UnboundedError,
    as_tensor,
    component_field,
    register,
    short_repr,
    upcast,
)
from partita_core.ranges import Width
from torch import Tensor, nn

from .causal_transformer import CausalRepresentationConfig
from .frozen_llm import FrozenLLM, embed_audio
from .language_model import FrozenLanguageModel, padded
from .supervision import SupervisionInput

# Frames that the encoder takes at a time: a matter of memory, not of results.
_TILE = 1024


@register("representation_model")
@dataclass(frozen=True)
class RepresentationModelConfig(Config):
    """A representation encoder for the latents of a codec that is trained already.

    Attributes:
        encoder: latents to features.
        adapter: features to embeddings of the language model; None where there is none.
        language_model: that supervises, frozen: a folder, or a repository on the hub; None for none.
        language_model_sha256: what its weights hash to; None to take them as they are. Saving writes it.
        language_model_width: of its embeddings, so that it is not loaded before it is asked; None to find out.
    """

    needs_codec: ClassVar[bool] = True

    encoder: Config = component_field("representation", default=CausalRepresentationConfig())
    adapter: Config | None = component_field("adapter", default=None)
    language_model: str | None = None
    language_model_sha256: str | None = None
    language_model_width: Width | None = None

    def build(self, *, codec: Codec) -> "RepresentationModel":
        """Build the model on `codec`.

        Raises:
            PartitaError: `codec` is not a codec, the language model is not found, or only one of adapter and language
                model is set.
        """
        if not isinstance(codec, Codec):
            raise PartitaError(f"a representation is built on a codec; a {type(codec).__name__} is none")
        if (self.adapter is None) != (self.language_model is None):
            there, lacking = ("adapter", "language_model") if self.adapter else ("language_model", "adapter")
            raise PartitaError(f"the model has the part {there} and no {lacking}; it takes both, or neither")
        encoder = self.encoder.build(latent_spec=codec.latent_spec)
        if self.adapter is None or self.language_model is None:
            return RepresentationModel(codec, encoder)
        load = partial(FrozenLanguageModel, self.language_model, self.language_model_sha256)
        model = load() if self.language_model_width is None else load
        width = model.hidden_size if isinstance(model, FrozenLanguageModel) else self.language_model_width
        return RepresentationModel(codec, encoder, self.adapter.build(width=encoder.width, out_dim=width), model)

    @classmethod
    def example(cls) -> Self:
        """A tiny encoder without a language model."""
        return cls(CausalRepresentationConfig.example())


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a batch of recordings, with their number and rate.

    Attributes:
        values: features `(batch, frames, width)`, at least float32, zero past the end of each item.
        frames: number of frames per item, `(batch,)` int64 on the CPU.
        frame_rate: frames per second.
    """

    values: Tensor
    frames: Tensor
    frame_rate: Fraction


class RepresentationModel(Saved):
    """Frozen codec, and a representation encoder of its latents.

    The saved folder contains the folder of the codec as `codec/`. A language model is stored by name and hash, and is
    loaded when it is first used.

    Attributes:
        encoder: normalized latents to features.
        adapter: features to embeddings of the language model, or None.
    """

    def __init__(
        self,
        codec: Codec,
        encoder: RepresentationEncoder,
        adapter: nn.Module | None = None,
        language_model: FrozenLanguageModel | Callable[[], FrozenLanguageModel] | None = None,
    ) -> None:
        """Assemble the parts; `language_model` may be a function that loads it.

        Raises:
            PartitaError: the encoder does not fit the latents of the codec.
        """
        super().__init__()
        spec = codec.latent_spec
        for name in ("dim", "tokens_per_frame"):
            takes, makes = getattr(encoder, name), getattr(spec, name)
            if takes != makes:
                raise PartitaError(f"the encoder takes latents of {name} {takes}, the codec's have {makes}")
        self.frozen_codec, self.scale = Frozen(codec), LatentNormalizer(spec)
        self.encoder, self.adapter = encoder, adapter
        self._language_model, self._load = None, None
        if isinstance(language_model, FrozenLanguageModel):
            self._language_model = language_model
        else:
            self._load = language_model

    @property
    def codec(self) -> Codec:
        """Codec whose latents are encoded."""
        return self.frozen_codec.module  # pyright: ignore[reportReturnType]

    @property
    def language_model(self) -> FrozenLanguageModel | None:
        """Language model, loaded at the first use; None if the model has none.

        Raises:
            PartitaError: it is not found, or its weights have changed.
        """
        if self._language_model is None and self._load is not None:
            self._language_model = self._load().to(self._parameter().device)
        return self._language_model

    def normalize(self, values: Tensor) -> Tensor:
        """Normalize latents `(batch, dim, tokens)` of the codec for the encoder; see `Latents.normalize`.

        Without measured statistics, latents are returned unchanged.
        """
        return self.scale.normalize(as_tensor(values, "values"))

    def forward(self, values: Tensor) -> Tensor:
        """Encode normalized latents `(batch, dim, frames * K)` to features `(batch, frames, width)`."""
        return self.encoder(values)

    @torch.no_grad()
    def represent(
        self, x: Tensor | Latents, *, lengths: Tensor | Sequence[int] | None = None, layout: Any = None
    ) -> Features:
        """Compute the features of audio, or of latents of the codec, normalized or not.

        Runs without gradients and autocast, in the dtype of the weights, and in pieces for long recordings. Items do
        not depend on each other.

        Args:
            x: audio `(batch, channels, samples)`, or latents.
            lengths: number of samples per item of audio; see `Codec.encode`.
            layout: channel layout of audio; see `Codec.encode`.

        Raises:
            PartitaError: the audio does not fit the codec, or the latents are of another space.
        """
        latents = self._latents(x, lengths, layout)
        assert latents.values is not None
        values = latents.values.to(self._parameter())
        values = values if latents.normalized else self.normalize(values)
        counts, k = latents.frames.tolist(), self.encoder.tokens_per_frame
        features = upcast(values.new_zeros(len(latents), max(counts), self.encoder.width))
        with torch.autocast(values.device.type, enabled=False):
            for items in self._groups(counts):
                count = counts[items[0]]
                features[items, :count] = upcast(self._encode(values[items, :, : count * k]))
        return Features(features, latents.frames, latents.spec.frame_rate)

    @torch.no_grad()
    def answer(
        self,
        x: Tensor | Latents,
        prompt: str,
        *,
        max_new_tokens: int = 64,
        lengths: Tensor | Sequence[int] | None = None,
        layout: Any = None,
    ) -> list[str]:
        """Generate the answer of the language model to a prompt about audio, or latents, one text per item.

        Args:
            x: audio or latents; see `represent`.
            prompt: question about each item.
            max_new_tokens: maximum number of tokens per answer.
            lengths: number of samples per item of audio.
            layout: channel layout of audio.

        Raises:
            PartitaError: the model has no language model, or it cannot be loaded.
        """
        model, adapter = self._language_parts()
        features = self.represent(x, lengths=lengths, layout=layout)
        texts = []
        with torch.autocast(features.values.device.type, enabled=False):
            for values, frames in zip(
                *(t.split(self.codec.max_batch_size) for t in (features.values, features.frames))
            ):
                audio, counts = embed_audio(adapter, values.to(self._parameter()), frames)
                questions = model.questions([prompt] * len(audio), audio, counts)
                texts += model.generate(*padded(questions), max_new_tokens=max_new_tokens)
        return texts

    @torch.no_grad()
    def surprise(self, features: Features, prompt: str, texts: Sequence[str]) -> Tensor:
        """Mean negative log-likelihood of each text given its features, in nats per token, `(batch,)`.

        It is the training loss of the language model: over the tokens of a text and its end.

        Args:
            features: features of the items.
            prompt: question about each item.
            texts: answer per item.

        Raises:
            PartitaError: the model has no language model, or it cannot be loaded.
        """
        model, adapter = self._language_parts()
        supervision = FrozenLLM(adapter=adapter, language_model=model)
        found = []
        with torch.autocast(features.values.device.type, enabled=False):
            for values, frames, text in zip(features.values.to(self._parameter()), features.frames, texts, strict=True):
                inputs = SupervisionInput(values[None], values.new_zeros(1, 0, 0), frames[None], [prompt], [text])
                found.append(supervision(inputs).loss)
        return torch.stack(found)

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """Optimize encoder, adapter and codec as `Codec.optimize` does; the language model is left unchanged."""
        self.eval().requires_grad_(False)
        self.codec.optimize(precision=precision, compile=compile)
        self.encoder.optimize(precision=precision, compile=compile)
        if self.adapter is not None and precision == "bf16":
            self.adapter.to(torch.bfloat16)
        return self

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Config, with hash and width of the language model, and the `space_id` of the codec; see `Saved`.

        Raises:
            PartitaError: the model was not built from a Config, or its codec cannot be saved.
        """
        config = getattr(self, "config", None)
        if not isinstance(config, RepresentationModelConfig):
            raise PartitaError("a representation that was not built from a registered Config cannot be saved")
        if not isinstance(self.codec, Saved):
            raise PartitaError(
                f"a representation on a {type(self.codec).__name__}, which cannot be saved, cannot either"
            )
        self.codec.saved_config()
        model = self._language_model
        if model is not None:
            known = {"language_model_sha256": model.sha256, "language_model_width": model.hidden_size}
            config = replace(config, **known)
        return config, {"space_id": self.codec.space_id}

    def restore(self, facts: dict[str, Any]) -> None:
        """Check that the codec has the latent space that the encoder was trained on; see `Saved`."""
        if facts["space_id"] != self.codec.space_id:
            space = f"its codec's is {self.codec.space_id}"
            raise PartitaError(
                f"the representation was trained on the latent space {short_repr(facts['space_id'])}, {space}"
            )

    def nested(self) -> dict[str, Saved]:
        """The codec; see `Saved`."""
        return {"codec": self.codec}  # pyright: ignore[reportReturnType]

    def _latents(self, x: Tensor | Latents, lengths: Any, layout: Any) -> Latents:
        if not isinstance(x, Latents):
            return self.codec.encode(x, lengths=lengths, layout=layout)
        if lengths is not None or layout is not None:
            raise PartitaError("latents know their lengths and layouts; these are for audio")
        self.codec.check_latents(x)
        if x.values is not None:
            return x
        assert x.codes is not None
        return replace(x, values=self.codec.codes_to_values(x.codes.to(self._parameter().device)))

    def _encode(self, values: Tensor) -> Tensor:
        k = self.encoder.tokens_per_frame
        if values.shape[-1] <= _TILE * k:
            return self.encoder(values)
        try:
            stream = self.encoder.stream(len(values), dtype=values.dtype, width=_TILE)
        except UnboundedError:
            return self.encoder(values)
        return stream.push(values, last=True).mT

    def _groups(self, counts: list[int]) -> Iterator[list[int]]:
        """Groups of items with equal numbers of frames, at most `max_batch_size` each."""
        for count in sorted(set(counts)):
            items = [i for i, own in enumerate(counts) if own == count]
            for start in range(0, len(items), self.codec.max_batch_size):
                yield items[start : start + self.codec.max_batch_size]

    def _language_parts(self) -> tuple[FrozenLanguageModel, nn.Module]:
        model = self.language_model
        if model is None or self.adapter is None:
            raise PartitaError("this model was trained without a language model; there is nobody to ask")
        return model, self.adapter

    def _parameter(self) -> Tensor:
        return next(self.encoder.parameters())
