"""Latents and features of whole clips, pooled over time."""

from dataclasses import replace

from partita_core import ChannelLayout, Codec, Latents, PartitaError, convert, length_mask, regroup
from torch import Tensor

from .audio.resampling import resample_some
from .clips import Clip


def truncate_clip(clip: Clip, seconds: float) -> Clip:
    """The clip cut to its first seconds."""
    most = max(1, round(seconds * clip.sample_rate))
    return replace(clip, audio=clip.audio[..., :most])


def codec_input(codec: Codec, clip: Clip) -> tuple[Tensor, ChannelLayout]:
    """The audio of a clip and its layout as the codec can take them: at its rate, and mono if that is all it takes."""
    audio = resample_some(clip.audio, clip.sample_rate, codec.audio_spec.sample_rate)
    if codec.audio_spec.layouts == (ChannelLayout.MONO,):
        return convert(audio, clip.layout, ChannelLayout.MONO), ChannelLayout.MONO
    return audio, clip.layout


def encode_clip(codec: Codec, clip: Clip) -> Latents:
    """The latents of a whole clip, normalised where their statistics are known."""
    audio, layout = codec_input(codec, clip)
    latents = codec.encode(audio[None], layout=layout)
    return latents if latents.spec.mean is None or latents.spec.std is None else latents.normalize()


def stack_tokens(latents: Latents) -> Tensor:
    """The values as one vector a frame, `(batch, frames, K * dim)`.

    Raises:
        PartitaError: there are no values.
    """
    if latents.values is None:
        raise PartitaError("these latents hold codes only; a probe reads values")
    return regroup(latents.values, latents.spec.dim * latents.spec.tokens_per_frame).transpose(1, 2)


def masked_mean(values: Tensor, frames: Tensor) -> Tensor:
    """The mean over the frames that each item has.

    Args:
        values: `(batch, frames, width)`; what is past an item's end has no effect.
        frames: `(batch,)`, of each item; at least one.

    Returns:
        `(batch, width)`.
    """
    frames = frames.to(values.device)
    inside = length_mask(frames, values.shape[1])
    return values.masked_fill(~inside[..., None], 0).sum(1) / frames[:, None]


def pooled(values: Tensor, frames: Tensor) -> Tensor:
    """The mean over time of `(1, frames, width)`, of which `frames` count: `(width,)` float32 on the CPU."""
    return masked_mean(values.float(), frames)[0].cpu()
