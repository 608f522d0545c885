"""Embedders by name, for Frechet distances: what makes one vector of a clip."""

import math
from typing import TYPE_CHECKING, Any

import torch
from partita_core import ChannelLayout, Codec, PartitaError, convert, first_line
from torch import Tensor

from partita.data.audio.resampling import resample_some
from partita.data.clip_latents import encode_clip, pooled, stack_tokens
from partita.data.clips import Clip
from partita.interop.loading import is_codec, load_pretrained, repository_of
from partita.model_loading import HF_PREFIX, codec_of, load_model, load_representation

from .frechet import Embed
from .references import fit

if TYPE_CHECKING:
    from partita_representation import RepresentationModel

# Seconds that a model of transformers is given at a time, at most, if it does not say how many, and at least.
_SECONDS, _LEAST = 10.0, 0.25


def open_embedder(name: str) -> Embed:
    """The embedder that is called `name`.

    Each makes the mean over time of what a model makes of a clip, float32 on the CPU. To a model that takes one length
    alone, as Whisper and CLAP do, a shorter clip is repeated.

    Args:
        name: `latents:MODEL` for the latents of a codec, normalized where their statistics are known, `features:MODEL`
            for the features of a representation model, both models as `load_model` names them. `hf:NAME` for an audio
            model of transformers, a folder or on the hub: the latents of a codec, the audio embedding of CLAP, the last
            hidden state of any other, or of its encoder if it has one. It hears the mean of the channels at its rate.

    Raises:
        PartitaError: the name is none of these, there is no such model, or it is of another kind.
    """
    kind, _, model = name.partition(":")
    if kind not in ("latents", "features", "hf") or not model:
        raise PartitaError(f"no embedder is called {name!r}; name it latents:MODEL, features:MODEL or hf:NAME")
    if kind == "features":
        return _features(load_representation(model))
    if kind == "latents":
        return _latents(codec_of(load_model(model)))
    return _latents(load_model(HF_PREFIX + model)) if is_codec(model) else _TransformersEmbedder(model)


def _latents(codec: Codec) -> Embed:
    def embed(audio: Tensor, sample_rate: int, layout: ChannelLayout) -> Tensor:
        latents = encode_clip(codec, Clip(0, "", audio, sample_rate, layout, {}))
        return pooled(stack_tokens(latents), latents.frames)

    return embed


def _features(model: "RepresentationModel") -> Embed:
    def embed(audio: Tensor, sample_rate: int, layout: ChannelLayout) -> Tensor:
        features = model.represent(encode_clip(model.codec, Clip(0, "", audio, sample_rate, layout, {})))
        return pooled(features.values, features.frames)

    return embed


class _TransformersEmbedder:
    """An audio model of transformers, on equal pieces that are short enough for it."""

    def __init__(self, name: str) -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        self.model = load_pretrained(AutoModel, name, "model").eval()
        repository, subfolder = repository_of(name)
        try:
            self.extractor = AutoFeatureExtractor.from_pretrained(
                repository, subfolder=subfolder, trust_remote_code=False
            )
            self.rate: int = self.extractor.sampling_rate
            longest = getattr(self.extractor, "nb_max_samples", None) or getattr(self.extractor, "n_samples", None)
            self._longest = int(longest or _SECONDS * self.rate)
            half, whole = (self._inputs(torch.zeros(self._longest // k)) for k in (2, 1))
            self._always_whole = all(half[key].shape == whole[key].shape for key in whole)
            self._embed_piece(torch.zeros(self.rate))
        except Exception as error:  # of what kind is up to them
            raise PartitaError(f"{name} makes no embedding of audio: {first_line(error)}") from None

    def __call__(self, audio: Tensor, sample_rate: int, layout: ChannelLayout) -> Tensor:
        mono = resample_some(convert(audio.cpu(), layout, ChannelLayout.MONO), sample_rate, self.rate)[0]
        pieces = mono.tensor_split(math.ceil(len(mono) / self._longest))
        return torch.stack([self._embed_piece(piece) for piece in pieces]).mean(0)

    @torch.no_grad()
    def _embed_piece(self, piece: Tensor) -> Tensor:
        if self._always_whole:  # it would be filled with silence, which would weigh as much as what is heard
            piece = piece.repeat(math.ceil(self._longest / len(piece)))[: self._longest]
        inputs = self._inputs(fit(piece, max(round(_LEAST * self.rate), len(piece))))
        if hasattr(self.model, "get_audio_features"):
            return self.model.get_audio_features(**inputs).pooler_output[0]
        network = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        return network(**inputs).last_hidden_state[0].mean(0)

    def _inputs(self, piece: Tensor) -> Any:
        return self.extractor(piece.numpy(), sampling_rate=self.rate, return_tensors="pt")
