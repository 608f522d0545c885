"""Encoding audio files: one of any length in constant memory, or many in batches of equal length."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from partita_core import (
    ChannelLayout,
    Codec,
    Latents,
    PartitaError,
    StreamEncoder,
    UnboundedError,
    default_layout,
)
from torch import Tensor

from .audio.files import AudioSource, audio_info, read_audio, source_name
from .audio.resampling import AudioReader, resample, resampled_length


def encode_source(
    codec: Codec,
    source: AudioSource,
    *,
    layout: ChannelLayout | str | None = None,
    num_quantizers: int | None = None,
    on_samples: Callable[[int], None] | None = None,
) -> Latents:
    """Encode a file block by block, resampled to the model's sample rate if needed.

    Args:
        codec: the model.
        source: the file.
        layout: channel layout of the audio; None for that of its channels.
        num_quantizers: levels of codes; None for all.
        on_samples: called with the number of samples of each block, at the model's sample rate.

    Raises:
        UnboundedError: the model has no finite context, so it needs the entire file.
        PartitaError: the file cannot be read, the model does not take its layout, or its latents are not finite.
    """
    rate = codec.audio_spec.sample_rate
    # The context around a block is computed again in every push; with blocks of a tile, this costs little.
    reader = AudioReader(source, rate, block_frames=max(1, round(codec.tile_seconds * rate)))
    channels = reader.info.channels
    try:
        known = default_layout(channels) if layout is None else layout
        stream = StreamEncoder(codec, layout=known, num_quantizers=num_quantizers)
    except UnboundedError:
        raise
    except PartitaError as error:
        raise PartitaError(f"{source_name(source)}: {error}") from None
    pieces = []
    for block in reader:
        if block.shape[0] != channels:
            raise _changed(source, f"{block.shape[0]} channels", f"{channels}")
        pieces.append(stream.push(block[None]).to("cpu"))
        if on_samples:
            on_samples(block.shape[-1])
    pieces.append(stream.push(torch.zeros(1, channels, 0), last=True).to("cpu"))
    return _check(Latents.concatenate(pieces), source)


class _Group(NamedTuple):
    """Files that are encoded together, with equal frames and channels."""

    frames: int
    channels: int
    items: list[int]


def encode_files(
    codec: Codec,
    source: Callable[[int], AudioSource],
    count: int,
    *,
    layout: ChannelLayout | str | None = None,
    num_quantizers: int | None = None,
) -> Iterator[tuple[int, Latents | PartitaError]]:
    """Encode files number 0 to `count` - 1, batching files of equal frames as far as they fit into a tile.

    The grouping depends on the files only, and the next group is read while one is encoded. The channels of a stereo
    file are averaged for a mono model, as in training crops.

    Args:
        codec: the model.
        source: returns a file, given its number.
        count: number of files.
        layout: channel layout of all files; None for that of each file's channels.
        num_quantizers: levels of codes; None for all.

    Yields:
        Number of each file and its latents on the CPU, or the error; in order of completion.
    """
    spec, rate = codec.latent_spec, codec.audio_spec.sample_rate
    tile = codec.tile_frames
    members: dict[tuple[int, int], list[int]] = {}
    for item in range(count):
        try:
            info = audio_info(source(item))
        except PartitaError as error:
            yield item, error
            continue
        frames = spec.frames(resampled_length(info.frames, info.sample_rate, rate))
        members.setdefault((frames, info.channels), []).append(item)
    groups = []
    for (frames, channels), items in members.items():
        size = max(1, min(codec.max_batch_size, tile // max(1, frames)))
        groups += [_Group(frames, channels, items[at : at + size]) for at in range(0, len(items), size)]

    def chosen(channels: int) -> ChannelLayout | str | None:
        return ChannelLayout.MONO if layout is None and channels == 2 and codec.audio_spec.channels == 1 else layout

    def read(group: _Group) -> list[tuple[int, Tensor | PartitaError]]:
        # A file longer than a tile is read as it is encoded.
        return [] if group.frames > tile else [(item, _read(codec, source(item), group)) for item in group.items]

    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(read, group) for group in groups[:1]]
        for number, group in enumerate(groups):
            found = ahead.pop().result()
            ahead = [pool.submit(read, following) for following in groups[number + 1 : number + 2]]
            settings = {"layout": chosen(group.channels), "num_quantizers": num_quantizers}
            if group.frames > tile:
                yield from ((item, _encode_long(codec, source(item), group, **settings)) for item in group.items)
                continue
            yield from ((item, error) for item, error in found if isinstance(error, PartitaError))
            good = {item: audio for item, audio in found if isinstance(audio, Tensor)}
            try:
                made = _encode_together(codec, list(good.values()), **settings)
            except PartitaError as error:  # about the layout, which all of them share
                yield from ((item, PartitaError(f"{source_name(source(item))}: {error}")) for item in good)
                continue
            for item, latents in zip(good, made):
                try:
                    yield item, _check(latents, source(item))
                except PartitaError as error:
                    yield item, error


def _check(latents: Latents, source: AudioSource) -> Latents:
    """Raise an error for latents that could not be loaded again, such as those of samples far beyond full scale."""
    try:
        latents.check()
    except PartitaError as error:
        raise PartitaError(f"{source_name(source)}: cannot be encoded: {error}") from None
    return latents


def _read(codec: Codec, source: AudioSource, group: _Group) -> Tensor | PartitaError:
    rate = codec.audio_spec.sample_rate
    try:
        audio, own = read_audio(source)
    except PartitaError as error:
        return error
    audio = resample(audio, own, rate)
    if not audio.shape[-1]:
        return PartitaError(f"{source_name(source)}: holds no samples at {rate} Hz")
    return _check_unchanged(group, source, codec.latent_spec.frames(audio.shape[-1]), audio.shape[0]) or audio


def _check_unchanged(group: _Group, source: AudioSource, frames: int, channels: int) -> PartitaError | None:
    """The error for a file that has changed since the files were grouped; None if it has not."""
    if (frames, channels) == (group.frames, group.channels):
        return None
    now, then = (f"{one[0]} frames of {one[1]} channels" for one in ((frames, channels), group))
    return _changed(source, now, then)


def _changed(source: AudioSource, now: str, then: str) -> PartitaError:
    return PartitaError(
        f"{source_name(source)}: has changed while it was encoded, from {then} to {now}; encode it again"
    )


def _encode_together(codec: Codec, audio: list[Tensor], **settings: Any) -> list[Latents]:
    if not audio:
        return []
    lengths = [item.shape[-1] for item in audio]
    padded = torch.zeros(len(audio), audio[0].shape[0], max(lengths))
    for row, item in zip(padded, audio):
        row[:, : item.shape[-1]] = item
    latents = codec.encode(padded, lengths=lengths, **settings).to("cpu")
    return [latents[row] for row in range(len(audio))]


def _encode_long(codec: Codec, source: AudioSource, group: _Group, **settings: Any) -> Latents | PartitaError:
    try:
        info, rate = audio_info(source), codec.audio_spec.sample_rate
        frames = codec.latent_spec.frames(resampled_length(info.frames, info.sample_rate, rate))
        return _check_unchanged(group, source, frames, info.channels) or encode_source(codec, source, **settings)
    except UnboundedError:  # the model needs the entire file
        audio = _read(codec, source, group)
        if isinstance(audio, PartitaError):
            return audio
        return _check(_encode_together(codec, [audio], **settings)[0], source)
    except PartitaError as error:
        return error
