"""What a codec is given, checked: each function returns it in one form or raises `PartitaError`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import PartitaError, shown
from .layouts import ChannelLayout, as_layouts, natural_layout, network_layout
from .specs import AudioSpec, LatentSpec

Layouts = ChannelLayout | str | int | Sequence[ChannelLayout | str | int] | Tensor


def check_audio(
    spec: AudioSpec, audio: Tensor, lengths: Tensor | Sequence[int] | None, layout: Layouts | None
) -> tuple[Tensor, list[ChannelLayout]]:
    """The lengths `(batch,)`, on the CPU, and the layouts of a batch of audio for a network of `spec`."""
    if audio.dim() != 3 or not audio.is_floating_point():
        raise PartitaError(f"audio is {tuple(audio.shape)}; floating (batch, channels, samples) is expected")
    batch, channels, samples = audio.shape
    layout = natural_layout(channels) if layout is None else layout
    layouts = layout_list(layout, batch)
    for item in layouts:
        network_layout(item, spec.layouts)
        if item.width > channels or channels > 2:
            raise PartitaError(f"{item.name.lower()} audio has {item.width} channels, this has {channels}")
    sizes = torch.as_tensor([samples] * batch if lengths is None else lengths, dtype=torch.int64).cpu()
    if batch == 0 or sizes.shape != (batch,) or (sizes < 1).any() or (sizes > samples).any():
        raise PartitaError(f"lengths must be {batch} figures from 1 to {samples}, and there must be an item")
    if not torch.isfinite(audio).all():
        raise PartitaError("the audio has samples that are not finite (NaN or infinite)")
    return sizes, layouts


def check_levels(spec: LatentSpec, num_quantizers: int | None) -> None:
    """Refuses more levels of codes than there are, and none."""
    levels = len(spec.codebook_sizes)
    if num_quantizers is not None and not 1 <= num_quantizers <= levels:
        raise PartitaError(f"num_quantizers is {num_quantizers}; this model has {levels} levels of codes")


def decoder_layouts(
    spec: AudioSpec, source: list[ChannelLayout], target: list[ChannelLayout]
) -> tuple[Tensor, list[ChannelLayout]]:
    """The layouts that a network of `spec` is told so that `source` comes out as `target`, as tensor and list."""
    for was, wanted in zip(source, target):
        if was is ChannelLayout.MONO and wanted is not ChannelLayout.MONO:
            raise PartitaError(f"mono cannot be decoded as {wanted.name.lower()}: it would be invented")
    known = []
    for wanted in target:
        mono_only = spec.layouts == (ChannelLayout.MONO,)
        known.append(ChannelLayout.MONO if mono_only else network_layout(wanted, spec.layouts))
    return torch.tensor(known, dtype=torch.int64), known


def layout_list(layout: Layouts, batch_size: int) -> list[ChannelLayout]:
    """One layout, or one an item, as a list."""
    return [ChannelLayout(item) for item in as_layouts(layout, batch_size).tolist()]


def as_seeds(seed: int | Sequence[int] | Tensor, batch_size: int) -> Tensor:
    """One seed, or one an item, as `(batch,)` int64 on the CPU.

    Raises:
        PartitaError: there are others than one or `batch_size`, or one does not fit in 64 bits.
    """
    try:
        seeds = torch.as_tensor(seed, dtype=torch.int64).cpu()
    except (OverflowError, RuntimeError, ValueError):  # one of them, by how far it is
        raise PartitaError(f"the seed is {shown(seed)}; it must be from -2**63 to 2**63 - 1") from None
    if seeds.dim() == 0:
        return seeds.expand(batch_size)
    if seeds.shape != (batch_size,):
        raise PartitaError(f"{seeds.numel()} seeds for {batch_size} items")
    return seeds
