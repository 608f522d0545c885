"""Encoding clips of any sample rate and layout, and pooling their latents over time."""

from dataclasses import replace

from partita_core import ChannelLayout, Codec, Latents, PartitaError, convert, length_mask, regroup
from torch import Tensor

from .audio.resampling import resample_some
from .clips import Clip


def truncate_clip(clip: Clip, seconds: float) -> Clip:
    """The first seconds of a clip."""
    return replace(clip, audio=clip.audio[..., : max(1, round(seconds * clip.sample_rate))])


def codec_input(codec: Codec, clip: Clip) -> tuple[Tensor, ChannelLayout]:
    """The audio of a clip at the codec's sample rate, averaged for a mono codec, and its layout."""
    audio = resample_some(clip.audio, clip.sample_rate, codec.audio_spec.sample_rate)
    if codec.audio_spec.layouts == (ChannelLayout.MONO,):
        return convert(audio, clip.layout, ChannelLayout.MONO), ChannelLayout.MONO
    return audio, clip.layout


def encode_clip(codec: Codec, clip: Clip) -> Latents:
    """The latents of a clip, normalized if their statistics are known."""
    audio, layout = codec_input(codec, clip)
    latents = codec.encode(audio[None], layout=layout)
    return latents if latents.spec.mean is None or latents.spec.std is None else latents.normalize()


def stack_tokens(latents: Latents) -> Tensor:
    """The values as one vector per frame, `(batch, frames, K * dim)`.

    Raises:
        PartitaError: the latents hold codes only.
    """
    if latents.values is None:
        raise PartitaError("these latents hold codes only, but continuous values are needed; use a model with values")
    return regroup(latents.values, latents.spec.dim * latents.spec.tokens_per_frame).transpose(1, 2)


def masked_mean(values: Tensor, frames: Tensor) -> Tensor:
    """The mean over the frames of each item.

    Args:
        values: `(batch, frames, width)`; values past an item's end have no effect.
        frames: `(batch,)`, frames of each item, at least one.

    Returns:
        `(batch, width)`.
    """
    frames = frames.to(values.device)
    inside = length_mask(frames, values.shape[1])
    return values.masked_fill(~inside[..., None], 0).sum(1) / frames[:, None]


def pooled(values: Tensor, frames: Tensor) -> Tensor:
    """The mean over the first `frames` of `(1, frames, width)`: `(width,)` float32 on the CPU."""
    return masked_mean(values.float(), frames)[0].cpu()
