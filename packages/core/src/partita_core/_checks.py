"""The arguments of a codec, checked: each function returns them in one form or raises `PartitaError`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arrays import as_integers, as_tensor
from .errors import PartitaError, short_repr
from .layouts import ChannelLayout, as_layouts, default_layout, network_layout
from .specs import AudioSpec

Layouts = ChannelLayout | str | int | Sequence[ChannelLayout | str | int] | Tensor


def as_audio(audio: Any) -> Tensor:
    """Audio `(batch, channels, samples)` as a floating tensor.

    Raises:
        PartitaError: it is of another shape, or of integers.
    """
    audio = as_tensor(audio, "audio")
    if audio.dim() != 3 or not audio.is_floating_point():
        given = f"audio is {tuple(audio.shape)} {audio.dtype}"
        raise PartitaError(f"{given}; floating (batch, channels, samples) in [-1, 1] is expected")
    return audio


def check_audio(
    spec: AudioSpec, audio: Any, lengths: Tensor | Sequence[int] | None, layout: Layouts | None
) -> tuple[Tensor, Tensor, list[ChannelLayout]]:
    """A batch of audio for a network of `spec`: the audio, its lengths `(batch,)` on the CPU, and its layouts."""
    audio = as_audio(audio)
    batch, channels, samples = audio.shape
    layout = default_layout(channels) if layout is None else layout
    layouts = layout_list(layout, batch)
    for item in layouts:
        network_layout(item, spec.layouts)
        if item.width > channels or channels > 2:
            raise PartitaError(f"{item.name.lower()} audio has {item.width} channels, this has {channels}")
    sizes = as_integers([samples] * batch if lengths is None else lengths, "lengths").cpu()
    if batch == 0 or sizes.shape != (batch,) or (sizes < 1).any() or (sizes > samples).any():
        raise PartitaError(
            f"lengths are {short_repr(sizes.tolist())}; {batch} lengths from 1 to {samples} samples are needed, "
            "and at least one item"
        )
    if not torch.isfinite(audio).all():
        raise PartitaError("the audio has samples that are not finite (NaN or infinite)")
    return audio, sizes, layouts


def batch_lengths(lengths: Tensor | Sequence[int], batch_size: int, samples: int) -> Tensor:
    """Lengths `(batch,)` int64 of padded items of `samples`; those on an accelerator are not read.

    Raises:
        PartitaError: they are not one for each item, or one is not from 1 to `samples`.
    """
    sizes = as_integers(lengths, "lengths")
    read = sizes.device.type == "cpu" and not torch.compiler.is_compiling()
    if sizes.shape != (batch_size,) or read and bool(((sizes < 1) | (sizes > samples)).any()):
        given = short_repr(sizes.tolist()) if read else tuple(sizes.shape)
        raise PartitaError(f"lengths are {given}; {batch_size} lengths from 1 to {samples} samples are needed")
    return sizes


def known_layouts(spec: AudioSpec, layout: Layouts | None, batch_size: int) -> Tensor:
    """Layouts `(batch,)` int64 as a network of `spec` takes them; None for the only one that it knows.

    A tensor on an accelerator is not read, since training would wait for it, nor is one of a graph that is traced.

    Raises:
        PartitaError: the network does not know a layout, or knows several and none is named.
    """
    names = ", ".join(known.name.lower() for known in spec.layouts)
    if layout is None and len(spec.layouts) > 1:
        raise PartitaError(f"this model knows several layouts ({names}); name that of the audio")
    layout = next(iter(spec.layouts)) if layout is None else layout
    if isinstance(layout, Tensor) and (layout.device.type != "cpu" or torch.compiler.is_compiling()):
        return layout
    layouts = as_layouts(layout, batch_size)
    for item in layouts.tolist():
        if item not in spec.layouts:
            raise PartitaError(f"this model knows {names}, not {ChannelLayout(item).name.lower()}")
    return layouts


def decoder_layouts(
    spec: AudioSpec, source: list[ChannelLayout], target: list[ChannelLayout]
) -> tuple[Tensor, list[ChannelLayout]]:
    """The layouts that make a network of `spec` decode `source` as `target`, as a tensor and as a list."""
    for was, wanted in zip(source, target):
        if was is ChannelLayout.MONO and wanted is not ChannelLayout.MONO:
            raise PartitaError(f"mono cannot be decoded as {wanted.name.lower()}: it would be invented")
    known = []
    for wanted in target:
        mono_only = spec.layouts == (ChannelLayout.MONO,)
        known.append(ChannelLayout.MONO if mono_only else network_layout(wanted, spec.layouts))
    return torch.tensor(known, dtype=torch.int64), known


def layout_list(layout: Layouts, batch_size: int) -> list[ChannelLayout]:
    """One layout, or one per item, as a list."""
    return [ChannelLayout(item) for item in as_layouts(layout, batch_size).tolist()]


def as_seeds(seed: int | Sequence[int] | Tensor, batch_size: int) -> Tensor:
    """One seed, or one per item, as `(batch,)` int64 on the CPU.

    Raises:
        PartitaError: there are others than one or `batch_size`, or one is no integer of 64 bits.
    """
    try:
        seeds = as_integers(seed, "seeds").cpu()
    except PartitaError:
        raise PartitaError(f"the seed is {short_repr(seed)}; it must be an integer from -2**63 to 2**63 - 1") from None
    if seeds.dim() == 0:
        return seeds.expand(batch_size)
    if seeds.shape != (batch_size,):
        raise PartitaError(f"{seeds.numel()} seeds for {batch_size} items")
    return seeds
