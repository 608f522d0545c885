"""Argument checks of codecs: each function returns its argument in one form, or raises `PartitaError`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .arrays import as_integers, as_tensor
from .errors import PartitaError, short_repr
from .layouts import ChannelLayout, as_layouts, default_layout, network_layout
from .specs import AudioSpec

Layouts = ChannelLayout | str | int | Sequence[ChannelLayout | str | int] | Tensor


def as_audio(audio: Any, *, finite: bool = False) -> Tensor:
    """Convert audio to a floating-point tensor `(batch, channels, samples)`.

    Args:
        audio: tensor, array or nested lists.
        finite: also check that every sample is finite.

    Raises:
        PartitaError: the shape is another, the samples are integers, or one is not finite.
    """
    audio = as_tensor(audio, "audio")
    if audio.dim() != 3 or not audio.is_floating_point():
        given = f"audio is {tuple(audio.shape)} {audio.dtype}"
        raise PartitaError(f"{given}; floating-point (batch, channels, samples) in [-1, 1] is expected")
    if finite and not torch.isfinite(audio).all():
        raise PartitaError("the audio has samples that are not finite (NaN or infinite)")
    return audio


def check_audio(
    spec: AudioSpec, audio: Any, lengths: Tensor | Sequence[int] | None, layout: Layouts | None
) -> tuple[Tensor, Tensor, list[ChannelLayout]]:
    """Check a batch of audio for a network of `spec`.

    Returns:
        The audio, its lengths `(batch,)` on the CPU, and its layouts.

    Raises:
        PartitaError: the audio is invalid, a layout is not supported, or a length is out of range.
    """
    audio = as_audio(audio)
    batch, channels, samples = audio.shape
    layout = default_layout(channels) if layout is None else layout
    layouts = layout_list(layout, batch)
    for item in layouts:
        network_layout(item, spec.layouts)
        if item.width > channels or channels > 2:
            raise PartitaError(f"{item.name.lower()} audio has {item.width} channels, got {channels}")
    sizes = as_integers([samples] * batch if lengths is None else lengths, "lengths").cpu()
    if batch == 0 or sizes.shape != (batch,) or (sizes < 1).any() or (sizes > samples).any():
        raise PartitaError(
            f"lengths are {short_repr(sizes.tolist())}; {batch} lengths from 1 to {samples} samples, and at least one "
            "item, are expected"
        )
    return as_audio(audio, finite=True), sizes, layouts


def batch_lengths(lengths: Tensor | Sequence[int], batch_size: int, samples: int) -> Tensor:
    """Check lengths `(batch,)` int64 of items that are padded to `samples`; values on an accelerator are not read.

    Raises:
        PartitaError: there is not one length per item, or one is not from 1 to `samples`.
    """
    sizes = as_integers(lengths, "lengths")
    read = sizes.device.type == "cpu" and not torch.compiler.is_compiling()
    if sizes.shape != (batch_size,) or read and bool(((sizes < 1) | (sizes > samples)).any()):
        given = short_repr(sizes.tolist()) if read else tuple(sizes.shape)
        raise PartitaError(f"lengths are {given}; {batch_size} lengths from 1 to {samples} samples are expected")
    return sizes


def known_layouts(spec: AudioSpec, layout: Layouts | None, batch_size: int) -> Tensor:
    """Check layouts for a network of `spec`, and return them as `(batch,)` int64.

    Tensors on an accelerator and in a traced graph are returned unread, since reading them would stall training.

    Args:
        spec: audio of the network.
        layout: channel layout of each item, or one for all; None if the network supports only one.
        batch_size: number of items.

    Raises:
        PartitaError: the network does not support a layout, or supports several and `layout` is None.
    """
    names = ", ".join(known.name.lower() for known in spec.layouts)
    if layout is None and len(spec.layouts) > 1:
        raise PartitaError(f"this model supports several layouts ({names}); pass layout=")
    layout = next(iter(spec.layouts)) if layout is None else layout
    if isinstance(layout, Tensor) and (layout.device.type != "cpu" or torch.compiler.is_compiling()):
        return layout
    layouts = as_layouts(layout, batch_size)
    for item in layouts.tolist():
        if item not in spec.layouts:
            raise PartitaError(f"layout is {ChannelLayout(item).name.lower()}; this model supports {names}")
    return layouts


def decoder_layouts(
    spec: AudioSpec, source: list[ChannelLayout], target: list[ChannelLayout]
) -> tuple[Tensor, list[ChannelLayout]]:
    """Layouts in which a network of `spec` decodes latents of layout `source` for a result of layout `target`.

    Returns:
        The layout of each item, as a tensor and as a list.

    Raises:
        PartitaError: a mono item is requested as stereo or mid/side, or the network does not support a layout.
    """
    for was, wanted in zip(source, target):
        if was is ChannelLayout.MONO and wanted is not ChannelLayout.MONO:
            raise PartitaError(f"latents of mono audio cannot be decoded as {wanted.name.lower()}; use mono")
    known = []
    for wanted in target:
        mono_only = spec.layouts == (ChannelLayout.MONO,)
        known.append(ChannelLayout.MONO if mono_only else network_layout(wanted, spec.layouts))
    return torch.tensor(known, dtype=torch.int64), known


def layout_list(layout: Layouts, batch_size: int) -> list[ChannelLayout]:
    """Expand one layout, or one per item, to a list."""
    return [ChannelLayout(item) for item in as_layouts(layout, batch_size).tolist()]


def as_seeds(seed: int | Sequence[int] | Tensor, batch_size: int) -> Tensor:
    """Expand one seed, or one per item, to `(batch,)` int64 on the CPU.

    Raises:
        PartitaError: there are neither one nor `batch_size` seeds, or one is not a 64-bit integer.
    """
    try:
        seeds = as_integers(seed, "seeds").cpu()
    except PartitaError:
        raise PartitaError(f"seed is {short_repr(seed)}; an integer from -2**63 to 2**63 - 1 is expected") from None
    if seeds.dim() == 0:
        return seeds.expand(batch_size)
    if seeds.shape != (batch_size,):
        raise PartitaError(f"got {seeds.numel()} seeds for {batch_size} items; pass one, or one per item")
    return seeds
