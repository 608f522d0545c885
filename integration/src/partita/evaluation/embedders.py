"""Embedders for Frechet distances, by name: codec latents, features, or an audio model of transformers."""

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

# Longest and shortest pieces, in seconds, for models of transformers; some declare a longest piece themselves.
_MAX_SECONDS, _MIN_SECONDS = 10.0, 0.25


def open_embedder(name: str) -> Embed:
    """Open the embedder with the given name.

    An embedding is the mean over time of a model's output for a clip, float32 on the CPU. For models with a fixed
    input length, such as Whisper and CLAP, shorter clips are repeated.

    Args:
        name: `latents:MODEL` for the latents of a codec, normalized if their statistics are known; `features:MODEL`
            for the features of a representation model; MODEL is a name for `load_model`. `hf:NAME` for an audio model
            of transformers, a folder or on the hub: the latents of a codec, the audio embedding of CLAP, the last
            hidden state of any other, or of its encoder if it has one. Its input is the mean of the channels at the
            model's sample rate.

    Raises:
        PartitaError: the name has another form, the model does not exist, or it is of another kind.
    """
    kind, _, model = name.partition(":")
    if kind not in ("latents", "features", "hf") or not model:
        raise PartitaError(f"unknown embedder {name!r}; use latents:MODEL, features:MODEL or hf:NAME")
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
    """An audio model of transformers, applied to equal pieces of at most its longest input."""

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
            self._longest = int(longest or _MAX_SECONDS * self.rate)
            half, full = (self._inputs(torch.zeros(self._longest // k)) for k in (2, 1))
            self._pads_to_longest = all(half[key].shape == full[key].shape for key in full)
            self._embed_piece(torch.zeros(self.rate))
        except Exception as error:  # transformers raises many kinds
            raise PartitaError(f"{name} cannot embed audio: {first_line(error)}") from None

    def __call__(self, audio: Tensor, sample_rate: int, layout: ChannelLayout) -> Tensor:
        mono = resample_some(convert(audio.cpu(), layout, ChannelLayout.MONO), sample_rate, self.rate)[0]
        pieces = mono.tensor_split(math.ceil(len(mono) / self._longest))
        return torch.stack([self._embed_piece(piece) for piece in pieces]).mean(0)

    @torch.no_grad()
    def _embed_piece(self, piece: Tensor) -> Tensor:
        if self._pads_to_longest:  # with silence, which would count in the mean over time
            piece = piece.repeat(math.ceil(self._longest / len(piece)))[: self._longest]
        inputs = self._inputs(fit(piece, max(round(_MIN_SECONDS * self.rate), len(piece))))
        if hasattr(self.model, "get_audio_features"):
            return self.model.get_audio_features(**inputs).pooler_output[0]
        network = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        return network(**inputs).last_hidden_state[0].mean(0)

    def _inputs(self, piece: Tensor) -> Any:
        return self.extractor(piece.numpy(), sampling_rate=self.rate, return_tensors="pt")
