"""Channel layouts, and the one map between them.

Audio outside a network is in the layout that is named: with `MID_SIDE` the channels *are* M and S. A network
that knows several layouts always sees two channels, and mono travels as `(m, m)`; what comes back of it is mono
by the mean of the two.
"""

from collections.abc import Sequence
from enum import IntEnum
from operator import index
from typing import Any

import torch
from torch import Tensor

from .errors import PartitaError, short_repr, suggest


class ChannelLayout(IntEnum):
    """What the channels of an audio signal mean."""

    MONO = 0
    STEREO = 1
    MID_SIDE = 2

    @property
    def width(self) -> int:
        """Number of channels of audio in this layout."""
        return 1 if self is ChannelLayout.MONO else 2

    @classmethod
    def parse(cls, name: "str | int | ChannelLayout") -> "ChannelLayout":
        """The layout called `name` ("mono", "stereo", "mid_side" or "mid-side"), or numbered so.

        Raises:
            PartitaError: no layout is called or numbered that.
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
    """The layout that audio of `channels` channels has when nothing else is said.

    Raises:
        PartitaError: there is none, which is so for more than two channels.
    """
    if channels not in (1, 2):
        raise PartitaError(f"audio has {channels} channels; mono (1) and stereo or mid/side (2) are supported")
    return ChannelLayout.MONO if channels == 1 else ChannelLayout.STEREO


def convert(audio: Tensor, source: ChannelLayout, target: ChannelLayout) -> Tensor:
    """Maps audio from one layout to another: mid = (L + R) / 2, side = (L - R) / 2, mono = mid.

    Args:
        audio: `(..., source.width, samples)`.
        source: the layout that `audio` is in.
        target: the layout wanted.

    Returns:
        `(..., target.width, samples)`; `audio` itself where the two layouts agree.

    Raises:
        PartitaError: mono is asked for as something wider (that would be invention), or the width is not `source`'s.
    """
    if audio.shape[-2] != source.width:
        raise PartitaError(f"{source.name.lower()} audio has {source.width} channels, this has {audio.shape[-2]}")
    if source == target:
        return audio
    if source is ChannelLayout.MONO:
        raise PartitaError(f"mono cannot become {target.name.lower()}: the second channel would be invented")
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
    """The layout in which a network that knows `layouts` takes audio of `layout`.

    It is `layout` itself where the network knows it; else the one it maps to without loss (mono to the pair (m, m),
    stereo and mid/side to each other).

    Raises:
        PartitaError: there is none, as for stereo and a mono network.
    """
    if layout in layouts:
        return layout
    wide = [known for known in (ChannelLayout.STEREO, ChannelLayout.MID_SIDE) if known in layouts]
    if not wide:
        known = ", ".join(known.name.lower() for known in layouts)
        raise PartitaError(f"this model takes {known} only, not {layout.name.lower()}; fold the audio down first")
    return wide[0]


def to_network(audio: Tensor, layout: ChannelLayout, layouts: Sequence[ChannelLayout]) -> Tensor:
    """Audio of `layout` as a network that knows `layouts` takes it, in `network_layout(layout, layouts)`.

    Args:
        audio: `(..., layout.width, samples)`. Two channels named mono are folded to their mean first.
        layout: the layout that `audio` is in.
        layouts: what the network knows; a single mono means one channel, everything else two.

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
        # A network that knows mono by a token sees (m, m); one that does not sees a stereo or mid/side signal.
        return pair if known is layout else convert(pair, ChannelLayout.STEREO, known)
    return convert(audio, layout, known)


def from_network(audio: Tensor, known: ChannelLayout, layout: ChannelLayout) -> Tensor:
    """What a network returned in its layout `known`, in the layout wanted: the way back from `to_network`.

    Args:
        audio: `(..., channels, samples)` from a network that was told `known`.
        known: the layout it was told; of a pair returned for mono, the mean is the contract.
        layout: the layout wanted.

    Returns:
        `(..., layout.width, samples)`.
    """
    if known is ChannelLayout.MONO and audio.shape[-2] == 2:
        audio = audio.mean(-2, keepdim=True)
    return convert(audio, known, layout)


# What a pair of channels becomes, by the layout it is in and the one wanted: `[source, target] @ (first, second)`.
# To mono is always the fold-down twice, so that of a pair returned for mono the mean counts. From mono to anything
# else there is nothing.
_HALF, _NONE = [[0.5, 0.5], [0.5, 0.5]], [[float("nan")] * 2] * 2
_PAIRS = (
    (_HALF, _NONE, _NONE),
    (_HALF, [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, -0.5]]),
    ([[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, -1.0]], [[1.0, 0.0], [0.0, 1.0]]),
)


def convert_pairs(audio: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """`convert` for a batch as networks see it, each item with its own layouts, without branches.

    Args:
        audio: `(batch, channels, samples)` as networks see it: mono is the pair (m, m), or one channel in a model
            that knows nothing else.
        source: `(batch,)` int64, the layout each item is in.
        target: `(batch,)` int64, the layout wanted; mono as anything wider gives NaN.

    Returns:
        `(batch, channels, samples)`; for mono both channels are the mean.
    """
    if audio.shape[1] == 1:
        return audio
    matrices = audio.new_tensor(_PAIRS)[source.to(audio.device), target.to(audio.device)]
    return matrices @ audio


def as_layouts(layout: "ChannelLayout | str | int | Sequence | Tensor", batch_size: int) -> Tensor:
    """One layout, or one per item, as the `(batch,)` int64 tensor on the CPU that records hold.

    Raises:
        PartitaError: a layout is unknown, or there are neither one nor `batch_size` of them.
    """
    items: Any = layout
    items = items.tolist() if hasattr(items, "tolist") else items  # of a tensor or an array
    if not isinstance(items, (list, tuple)):
        items = [items] * batch_size
    if len(items) != batch_size:
        raise PartitaError(f"{len(items)} layouts for {batch_size} items")
    return torch.tensor([ChannelLayout.parse(item) for item in items], dtype=torch.int64)
