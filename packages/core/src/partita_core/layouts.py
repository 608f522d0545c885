"""Channel layouts and conversion between them.

Outside of networks, channels are those of the layout: in `MID_SIDE` audio they are M and S. A network that supports
several layouts always has two channels. Mono audio enters it as `(m, m)`, and its output is averaged back to mono.
"""

from collections.abc import Sequence
from enum import IntEnum
from operator import index
from typing import Any

import torch
from torch import Tensor

from .errors import PartitaError, short_repr, suggest


class ChannelLayout(IntEnum):
    """Meaning of the channels of an audio signal."""

    MONO = 0
    STEREO = 1
    MID_SIDE = 2

    @property
    def width(self) -> int:
        """Number of channels of audio in this layout."""
        return 1 if self is ChannelLayout.MONO else 2

    @classmethod
    def parse(cls, name: "str | int | ChannelLayout") -> "ChannelLayout":
        """Return the layout of a name ("mono", "stereo", "mid_side" or "mid-side") or number.

        Raises:
            PartitaError: there is no such layout.
        """
        if isinstance(name, str):
            key = name.strip().upper().replace("-", "_")
            if key not in cls.__members__:
                valid = [member.lower() for member in cls.__members__]
                raise PartitaError(f"unknown channel layout {name!r}; {suggest(name.lower(), valid)}")
            return cls[key]
        try:
            return cls(index(name))
        except (TypeError, ValueError):
            raise PartitaError(f"unknown channel layout {short_repr(name)}; valid: 0, 1, 2") from None


def default_layout(channels: int) -> ChannelLayout:
    """Return the layout of audio of `channels` channels for which no layout is given: mono or stereo.

    Raises:
        PartitaError: there are more than two channels.
    """
    if channels not in (1, 2):
        raise PartitaError(f"audio has {channels} channels; mono (1) and stereo or mid/side (2) are supported")
    return ChannelLayout.MONO if channels == 1 else ChannelLayout.STEREO


def convert(audio: Tensor, source: ChannelLayout, target: ChannelLayout) -> Tensor:
    """Convert audio between layouts: mid = (L + R) / 2, side = (L - R) / 2, mono = mid.

    Args:
        audio: `(..., source.width, samples)`.
        source: layout of `audio`.
        target: layout of the result.

    Returns:
        `(..., target.width, samples)`; `audio` itself if the layouts are equal.

    Raises:
        PartitaError: `source` is mono and `target` is not, or the number of channels is not that of `source`.
    """
    if audio.shape[-2] != source.width:
        raise PartitaError(f"{source.name.lower()} audio has {source.width} channels, got {audio.shape[-2]}")
    if source == target:
        return audio
    if source is ChannelLayout.MONO:
        raise PartitaError(
            f"mono audio cannot be converted to {target.name.lower()}; use mono, or repeat the channel yourself"
        )
    first, second = audio.unbind(-2)
    if source is ChannelLayout.STEREO:
        mid = (first + second) / 2
        if target is ChannelLayout.MONO:
            return mid.unsqueeze(-2)
        return torch.stack([mid, (first - second) / 2], dim=-2)
    if target is ChannelLayout.MONO:
        return first.unsqueeze(-2)
    return torch.stack([first + second, first - second], dim=-2)


def network_layout(layout: ChannelLayout, layouts: Sequence[ChannelLayout]) -> ChannelLayout:
    """Return the layout in which audio of `layout` enters a network that supports `layouts`.

    That is `layout` itself if supported, else one that it converts to without loss: mono to the pair (m, m), stereo
    and mid/side to each other.

    Raises:
        PartitaError: there is none, as for stereo audio and a mono network.
    """
    if layout in layouts:
        return layout
    wide = [known for known in (ChannelLayout.STEREO, ChannelLayout.MID_SIDE) if known in layouts]
    if not wide:
        known = ", ".join(known.name.lower() for known in layouts)
        raise PartitaError(
            f"layout is {layout.name.lower()}, and this model supports {known} only; downmix the audio first"
        )
    return wide[0]


def to_network(audio: Tensor, layout: ChannelLayout, layouts: Sequence[ChannelLayout]) -> Tensor:
    """Convert audio of `layout` to the input of a network, in `network_layout(layout, layouts)`.

    Args:
        audio: `(..., layout.width, samples)`. Two channels labeled mono are averaged first.
        layout: layout of `audio`.
        layouts: layouts that the network supports; it has one channel if that is mono alone, else two.

    Returns:
        `(..., channels, samples)`.
    """
    known = network_layout(layout, layouts)
    if layout is ChannelLayout.MONO:
        if audio.shape[-2] == 2:
            audio = audio.mean(-2, keepdim=True)
        if tuple(layouts) == (ChannelLayout.MONO,):
            return convert(audio, layout, layout)
        pair = convert(audio, layout, layout).expand(*audio.shape[:-2], 2, audio.shape[-1])
        # A network with a mono token gets (m, m); any other gets a stereo or mid/side signal.
        return pair if known is layout else convert(pair, ChannelLayout.STEREO, known)
    return convert(audio, layout, known)


def from_network(audio: Tensor, known: ChannelLayout, layout: ChannelLayout) -> Tensor:
    """Convert the output of a network from its layout `known` to `layout`: the inverse of `to_network`.

    Args:
        audio: `(..., channels, samples)`, output of a network for layout `known`.
        known: layout of the output; a pair returned for mono is averaged.
        layout: layout of the result.

    Returns:
        `(..., layout.width, samples)`.
    """
    if known is ChannelLayout.MONO and audio.shape[-2] == 2:
        audio = audio.mean(-2, keepdim=True)
    return convert(audio, known, layout)


# Conversion matrices of channel pairs, by source and target layout: `[source, target] @ (first, second)`.
# Mono is the mean of the channels, twice. From mono to other layouts there is no conversion.
_HALF, _NONE = [[0.5, 0.5], [0.5, 0.5]], [[float("nan")] * 2] * 2
_PAIRS = (
    (_HALF, _NONE, _NONE),
    (_HALF, [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, -0.5]]),
    ([[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, -1.0]], [[1.0, 0.0], [0.0, 1.0]]),
)


def convert_pairs(audio: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Convert a batch of network audio, each item between its own layouts, without branches.

    Args:
        audio: `(batch, channels, samples)`: mono is the pair (m, m), or one channel for a mono network.
        source: `(batch,)` int64, layout of each item.
        target: `(batch,)` int64, layout of each result; converting mono to another layout gives NaN.

    Returns:
        `(batch, channels, samples)`; for mono both channels are the mean.
    """
    if audio.shape[1] == 1:
        return audio
    matrices = audio.new_tensor(_PAIRS)[source.to(audio.device), target.to(audio.device)]
    return matrices @ audio


def as_layouts(layout: "ChannelLayout | str | int | Sequence | Tensor", batch_size: int) -> Tensor:
    """Expand one layout, or one per item, to `(batch,)` int64 on the CPU.

    Raises:
        PartitaError: a layout is unknown, or there are neither one nor `batch_size` layouts.
    """
    items: Any = layout
    items = items.tolist() if hasattr(items, "tolist") else items  # tensors and arrays
    if not isinstance(items, (list, tuple)):
        items = [items] * batch_size
    if len(items) != batch_size:
        raise PartitaError(f"got {len(items)} layouts for {batch_size} items; pass one, or one per item")
    return torch.tensor([ChannelLayout.parse(item) for item in items], dtype=torch.int64)
