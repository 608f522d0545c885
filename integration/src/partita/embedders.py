"""Embedders by name, for Frechet distances: what makes one vector of a clip."""

import math
from typing import TYPE_CHECKING

import torch
from partita_core import ChannelLayout, Codec, PartitaError, convert
from torch import Tensor
from torch.nn import functional as F

from .data.clips import Clip
from .data.resampling import resample
from .evaluation.frechet import Embed
from .interop.loading import first_line, is_codec, load_pretrained, repository_of
from .models import FOREIGN, codec_of, load_model, load_representation
from .probing.features import encode_clip, pooled, stack_tokens

if TYPE_CHECKING:
    from .representation import RepresentationModel

# Seconds that a model of transformers is given at a time, at most, if it does not say how many, and at least.
_SECONDS, _LEAST = 10.0, 0.25


def open_embedder(name: str) -> Embed:
    """The embedder that is called `name`.

    Each makes the mean over time of what a model makes of a clip, float32 on the CPU.

    Args:
        name: `latents:MODEL` for the latents of a codec, normalised where their statistics are known, `features:MODEL`
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
    return _latents(load_model(FOREIGN + model)) if is_codec(model) else _TransformersEmbedder(model)


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
            self.extractor = AutoFeatureExtractor.from_pretrained(repository, subfolder=subfolder)
            self.rate: int = self.extractor.sampling_rate
            self._embed_piece(torch.zeros(self.rate))
        except Exception as error:  # of what kind is up to them
            raise PartitaError(f"{name} makes no embedding of audio: {first_line(error)}") from None

    def __call__(self, audio: Tensor, sample_rate: int, layout: ChannelLayout) -> Tensor:
        mono = resample(convert(audio.cpu(), layout, ChannelLayout.MONO), sample_rate, self.rate)[0]
        longest = getattr(self.extractor, "nb_max_samples", None) or getattr(self.extractor, "n_samples", None)
        pieces = mono.tensor_split(math.ceil(len(mono) / (longest or _SECONDS * self.rate)))
        return torch.stack([self._embed_piece(piece) for piece in pieces]).mean(0)

    @torch.no_grad()
    def _embed_piece(self, piece: Tensor) -> Tensor:
        piece = F.pad(piece, (0, max(0, round(_LEAST * self.rate) - len(piece))))
        inputs = self.extractor(piece.numpy(), sampling_rate=self.rate, return_tensors="pt")
        if hasattr(self.model, "get_audio_features"):
            return self.model.get_audio_features(**inputs).pooler_output[0]
        network = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        return network(**inputs).last_hidden_state[0].mean(0)
