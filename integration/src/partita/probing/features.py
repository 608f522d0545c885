"""Inputs of probes: log-mel spectra, latents and features of clips, averaged over time."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch
from partita_core import Codec, Latents
from torch import Tensor

from partita.data.audio.resampling import resample
from partita.data.clip_latents import encode_clip, pooled, stack_tokens, truncate_clip
from partita.data.clips import Clip
from partita.evaluation.spectrograms import magnitudes, mel_bands
from partita.model_loading import codec_of

if TYPE_CHECKING:
    from partita_representation import RepresentationModel

LOG_MEL = "log-mel"

# Fixed for all models, so that the baseline is comparable.
_RATE, _WINDOW, _HOP, _BANDS, _FLOOR = 32_000, 1024, 320, 64, 1e-5


def log_mel(audio: Tensor, sample_rate: int) -> Tensor:
    """Log-mel spectrum `(frames, 64)` of audio `(channels, samples)`, the baseline without a model.

    Base-10 logarithms of 64 band magnitudes, at least -5, at 32 kHz with 100 frames per second, of the mean channel.
    """
    mono = resample(audio.mean(0, keepdim=True), sample_rate, _RATE)
    bands = _mel_bands() @ magnitudes(mono, _WINDOW, _HOP)[0]
    return bands.clamp_min(_FLOOR).log10().T


@cache
def _mel_bands() -> Tensor:
    return mel_bands(sample_rate=_RATE, window=_WINDOW, num_mels=_BANDS)


@torch.no_grad()
def pooled_features(
    models: "Mapping[str, Codec | RepresentationModel]", clips: Iterable[Clip], *, seconds: float
) -> dict[str, dict[int, Tensor]]:
    """Compute the sources of every clip, averaged over time.

    The sources are "log-mel", "NAME z" for the latents of each codec, normalized if their statistics are known, with
    the K tokens of a frame stacked, and "NAME u" for the features of each representation. Models on the same codec
    share its latents, which are named after the first of them.

    Args:
        models: models in eval mode by their names in the tables.
        clips: clips; only one is held in memory at a time.
        seconds: maximum length of a clip, from its start.

    Returns:
        source -> row of the clip -> `(width,)` float32 on the CPU.
    """
    found: dict[str, dict[int, Tensor]] = {LOG_MEL: {}} | {name: {} for name in source_names(models)}
    for clip in clips:
        clip = truncate_clip(clip, seconds)
        found[LOG_MEL][clip.index] = log_mel(clip.audio, clip.sample_rate).mean(0)
        spaces: dict[str, Latents] = {}
        for name, model in models.items():
            codec = codec_of(model)
            if codec.space_id not in spaces:
                latents = spaces[codec.space_id] = encode_clip(codec, clip)
                found[f"{name} z"][clip.index] = pooled(stack_tokens(latents), latents.frames)
            if not isinstance(model, Codec):
                features = model.represent(spaces[codec.space_id])
                found[f"{name} u"][clip.index] = pooled(features.values, features.frames)
    return found


def source_names(models: "Mapping[str, Codec | RepresentationModel]") -> list[str]:
    """Names of the models' sources, in the order of the models."""
    names, spaces = [], set()
    for name, model in models.items():
        space = codec_of(model).space_id
        names += [f"{name} z"] * (space not in spaces) + [f"{name} u"] * (not isinstance(model, Codec))
        spaces.add(space)
    return names
