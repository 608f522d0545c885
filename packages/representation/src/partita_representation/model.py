"""A representation encoder on top of a codec: audio, or its latents, to features; with a language model, to answers.

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
        """Builds it on `codec`.

        Raises:
            PartitaError: that is no codec, there is no such language model, or an adapter without one, or one without.
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
        """A tiny encoder alone."""
        return cls(CausalRepresentationConfig.example())


@dataclass(frozen=True, eq=False)
class Features:
    """What a representation makes of a batch.

    Attributes:
        values: `(batch, frames, width)`, at least float32, zero past an item's end.
        frames: `(batch,)` int64 on the CPU, frames of each item.
        frame_rate: frames a second.
    """

    values: Tensor
    frames: Tensor
    frame_rate: Fraction


class RepresentationModel(Saved):
    """A codec, frozen, and a representation encoder of its latents.

    It is saved as a folder that holds the codec's own as `codec/`. A language model is named there with its hash, and
    loaded when it is first asked for.

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
        """Assembles the parts; `language_model` may be what loads it.

        Raises:
            PartitaError: the encoder takes other latents than the codec makes.
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
        """The codec that makes the latents."""
        return self.frozen_codec.module  # pyright: ignore[reportReturnType]

    @property
    def language_model(self) -> FrozenLanguageModel | None:
        """The language model, loaded now if it was not; None where there is none.

        Raises:
            PartitaError: it is not where it was, or is another one.
        """
        if self._language_model is None and self._load is not None:
            self._language_model = self._load().to(self._parameter().device)
        return self._language_model

    def normalize(self, values: Tensor) -> Tensor:
        """Latents `(batch, dim, tokens)` of the codec as the encoder takes them; see `Latents.normalize`.

        Latents whose statistics nobody has measured stay as they are.
        """
        return self.scale.normalize(as_tensor(values, "values"))

    def forward(self, values: Tensor) -> Tensor:
        """Features `(batch, frames, width)` of normalized latents `(batch, dim, frames * K)`."""
        return self.encoder(values)

    @torch.no_grad()
    def represent(
        self, x: Tensor | Latents, *, lengths: Tensor | Sequence[int] | None = None, layout: Any = None
    ) -> Features:
        """The features of audio, or of latents of its codec, normalized or not.

        Runs without gradients, without autocast, in the dtype of the weights; long recordings in pieces. No item's
        result depends on its neighbors.

        Args:
            x: audio `(batch, channels, samples)`, or latents.
            lengths: of audio, as `Codec.encode` takes them.
            layout: of audio, likewise.

        Raises:
            PartitaError: the codec does not take the audio, or the latents are of another space.
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
        """What the language model says of audio, or of latents, one text an item; see `represent`.

        Raises:
            PartitaError: the model has no language model, or that cannot be loaded.
        """
        model = self.language_model
        if model is None:
            raise PartitaError("this model was trained without a language model; there is nobody to ask")
        features = self.represent(x, lengths=lengths, layout=layout)
        texts = []
        with torch.autocast(features.values.device.type, enabled=False):
            for values, frames in zip(
                *(t.split(self.codec.max_batch_size) for t in (features.values, features.frames))
            ):
                audio, counts = embed_audio(self.adapter, values.to(self._parameter()), frames)
                questions = model.questions([prompt] * len(audio), audio, counts)
                texts += model.generate(*padded(questions), max_new_tokens=max_new_tokens)
        return texts

    @torch.no_grad()
    def surprise(self, features: Features, prompt: str, texts: Sequence[str]) -> Tensor:
        """How little the language model expects each text of features, in nats a token, `(batch,)`; see `answer`.

        It is what training lowers: the mean negative log-likelihood of the tokens of a text and of its end.

        Raises:
            PartitaError: the model has no language model, or that cannot be loaded.
        """
        model = self.language_model
        if model is None or self.adapter is None:
            raise PartitaError("this model was trained without a language model; there is nobody to ask")
        supervision = FrozenLLM(adapter=self.adapter, language_model=model)
        found = []
        with torch.autocast(features.values.device.type, enabled=False):
            for values, frames, text in zip(features.values.to(self._parameter()), features.frames, texts, strict=True):
                heard = SupervisionInput(values[None], values.new_zeros(1, 0, 0), frames[None], [prompt], [text])
                found.append(supervision(heard).loss)
        return torch.stack(found)

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """As `Codec.optimize`, of the codec, too. The language model stays as it is."""
        self.eval().requires_grad_(False)
        self.codec.optimize(precision=precision, compile=compile)
        self.encoder.optimize(precision=precision, compile=compile)
        if self.adapter is not None and precision == "bf16":
            self.adapter.to(torch.bfloat16)
        return self

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Config, with the language model's hash and width, and the latent space; see `Saved`.

        Raises:
            PartitaError: it was not built from a Config, or its codec cannot be saved.
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
        """Holds the codec to the latent space that the encoder was trained on; see `Saved`."""
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
        """Items of equally many frames, at most as many at a time as the codec takes."""
        for count in sorted(set(counts)):
            items = [i for i, own in enumerate(counts) if own == count]
            for start in range(0, len(items), self.codec.max_batch_size):
                yield items[start : start + self.codec.max_batch_size]

    def _parameter(self) -> Tensor:
        return next(self.encoder.parameters())
