"""2-D convolutions between spectrograms and small feature maps whose points are tokens: patchifier and de-patchifier.

The architecture is that of CoDiCodec (arXiv 2509.09836). Maps are `(batch, channels, rows, columns)`, rows being
frequencies and columns frames. All modules keep the channels-last memory format, in which they are fastest and in which
the tokens of a map are a view of it.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from einops import reduce
from partita_core import PartitaError, TypedModule
from torch import Tensor, nn
from torch.nn import functional as F

from .noise_conditioning import AdaptiveGroupNorm
from .pointwise import silu

Stride = tuple[int, int]
"""Strides in rows and columns."""


def merge(x: Tensor, other: Tensor) -> Tensor:
    """Sum of two maps of unit variance, scaled to unit variance."""
    return (x + other) * 0.5**0.5


class ConvBlock(TypedModule):
    """Residual block `x + conv(silu(conv(norm(x))))`.

    Args:
        channels: width of the map.
        condition_dim: width of the condition of the norm; None without one.
        dropout: dropout probability between the convolutions.
        zero_init: initialize the last convolution with zeros, so that the block starts as the identity.
    """

    def __init__(self, channels: int, *, condition_dim: int | None, dropout: float, zero_init: bool) -> None:
        super().__init__()
        self.norm = AdaptiveGroupNorm(channels, condition_dim=condition_dim)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if zero_init:
            nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Process a feature map, keeping its shape, given a condition `(batch, condition_dim)` or None."""
        return x + self.outer(self.dropout(silu(self.inner(self.norm(x, condition)))))


class PatchDown(TypedModule):
    """Lower resolution: a strided convolution plus the average of each patch.

    The channels of the averaged shortcut are repeated up to the new width.

    Args:
        channels_in: width of the input.
        channels_out: width of the output, a multiple of `channels_in`.
        stride: rows and columns of a patch; patches do not overlap.
        condition_dim: see `ConvBlock`.
        zero_init: see `ConvBlock`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: Stride, condition_dim: int | None, zero_init: bool
    ) -> None:
        super().__init__()
        self.stride, self.repeats = stride, channels_out // channels_in
        self.norm = AdaptiveGroupNorm(channels_in, condition_dim=condition_dim)
        self.conv = nn.Conv2d(channels_in, channels_out, stride, stride, bias=False)
        if zero_init:
            nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Map `(batch, channels_in, rows, columns)` to `(batch, channels_out, rows / stride, columns / stride)`."""
        # Concatenated instead of einops' repeat, which would leave the channels-last format.
        shortcut = torch.cat([F.avg_pool2d(x, self.stride)] * self.repeats, dim=1)
        return self.conv(self.norm(x, condition)) + shortcut


class PatchUp(TypedModule):
    """Higher resolution: a transposed convolution, initially zero, plus nearest-neighbor upsampling.

    The channels of the shortcut are averaged down to the new width, which undoes the shortcut of `PatchDown`.

    Args:
        channels_in: width of the input, a multiple of `channels_out`.
        channels_out: width of the output.
        stride: rows and columns of the patch that each point becomes.
        condition_dim: see `ConvBlock`.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: Stride, condition_dim: int | None) -> None:
        super().__init__()
        self.scale, self.repeats = (float(stride[0]), float(stride[1])), channels_in // channels_out
        self.norm = AdaptiveGroupNorm(channels_in, condition_dim=condition_dim)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, stride, stride, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Map `(batch, channels_in, rows, columns)` to `(batch, channels_out, rows * stride, columns * stride)`."""
        shortcut = reduce(x, "b (repeats c) h w -> b c h w", "mean", repeats=self.repeats)
        shortcut = F.interpolate(shortcut, scale_factor=self.scale, mode="nearest")
        return self.conv(self.norm(x, condition)) + shortcut


class Patchifier(TypedModule):
    """Full resolution down to tokens: some blocks per level, a `PatchDown` between levels.

    Args:
        channels: width of each level, from full resolution on; each a multiple of the one before.
        strides: rows and columns of a patch, between each level and the next.
        blocks: number of blocks per level, at least one.
        condition_dim: width of the condition of all norms; None without one.
        dropout: dropout probability in the blocks.
        zero_init: initialize the residual branches with zeros. In an encoder this makes all outputs alike at first; see
            `SummaryEncoder`.

    Raises:
        PartitaError: the numbers of widths, strides and blocks do not match, or a width is not a multiple.

    Example:
        >>> sizes = {"channels": (32, 64, 128), "strides": ((4, 1), (4, 2)), "blocks": (1, 2, 2)}
        >>> patchifier = Patchifier(**sizes, condition_dim=None, dropout=0.0, zero_init=True)
        >>> depatchifier = Depatchifier(**sizes, condition_dim=None, dropout=0.0)
        >>> maps = patchifier(torch.randn(1, 32, 256, 64))  # the map after each block
        >>> maps[-1].shape, depatchifier(maps[-1], skips=maps[::-1])[-1].shape
        (torch.Size([1, 128, 16, 32]), torch.Size([1, 32, 256, 64]))
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[Stride],
        blocks: Sequence[int],
        condition_dim: int | None,
        dropout: float,
        zero_init: bool,
    ) -> None:
        super().__init__()
        _check(channels, strides, blocks)
        self.levels = _levels(channels, blocks, condition_dim=condition_dim, dropout=dropout, zero_init=zero_init)
        self.downs = nn.ModuleList(
            PatchDown(low, high, stride=stride, condition_dim=condition_dim, zero_init=zero_init)
            for low, high, stride in zip(channels[:-1], channels[1:], strides)
        )

    def forward(self, x: Tensor, *, features: Sequence[Tensor] = (), condition: Tensor | None = None) -> list[Tensor]:
        """Run all levels.

        Args:
            x: map of the first width, whose rows and columns are multiples of the product of the strides.
            features: maps to merge before each block, in the order of the blocks; empty for none.
            condition: `(batch, condition_dim)` condition of the norms; None without one.

        Returns:
            The map after each block; the last one is the result.
        """
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index:
                x = self.downs[index - 1](x, condition)
            x = _run(level, x, features, condition, maps)
        return maps


class Depatchifier(TypedModule):
    """Tokens up to full resolution: the mirror image of a `Patchifier`, with residual branches that start at zero.

    Args:
        channels: width of each level of the `Patchifier` that is mirrored, from full resolution on.
        strides: strides of that `Patchifier`.
        blocks: numbers of blocks of that `Patchifier`.
        condition_dim: width of the condition of all norms; None without one.
        dropout: dropout probability in the blocks.

    Raises:
        PartitaError: the numbers of widths, strides and blocks do not match, or a width is not a multiple.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[Stride],
        blocks: Sequence[int],
        condition_dim: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        _check(channels, strides, blocks)
        channels, strides, blocks = channels[::-1], strides[::-1], blocks[::-1]
        self.levels = _levels(channels, blocks, condition_dim=condition_dim, dropout=dropout, zero_init=True)
        self.ups = nn.ModuleList(
            PatchUp(high, low, stride=stride, condition_dim=condition_dim)
            for high, low, stride in zip(channels[:-1], channels[1:], strides)
        )

    def forward(self, x: Tensor, *, skips: Sequence[Tensor] = (), condition: Tensor | None = None) -> list[Tensor]:
        """Run all levels.

        Args:
            x: map of the last width.
            skips: maps to merge before each block, in the order of the blocks, that is, the maps of the patchifier
                reversed; empty for none.
            condition: `(batch, condition_dim)` condition of the norms; None without one.

        Returns:
            The map after each block, with the shapes of the maps of the patchifier in reverse; the last one is the
            result.
        """
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index:
                x = self.ups[index - 1](x, condition)
            x = _run(level, x, skips, condition, maps)
        return maps


def patch_grid(rows: int, columns: int, strides: Sequence[Stride]) -> tuple[int, int]:
    """Rows and columns of the tokens that a `Patchifier` with these strides makes of a map.

    Raises:
        PartitaError: the strides do not divide the map.
    """
    down, along = prod(stride[0] for stride in strides), prod(stride[1] for stride in strides)
    if rows % down or columns % along:
        raise PartitaError(
            f"strides {tuple(strides)} do not divide a map of {rows} rows and {columns} columns; "
            f"use multiples of {down} and {along}"
        )
    return rows // down, columns // along


def _check(channels: Sequence[int], strides: Sequence[Stride], blocks: Sequence[int]) -> None:
    if not len(channels) == len(blocks) == len(strides) + 1:
        raise PartitaError(
            f"{len(channels)} channels, {len(blocks)} blocks and {len(strides)} strides do not match; "
            f"give one width and one number of blocks per level, and one stride between levels"
        )
    if min(blocks) < 1:
        raise PartitaError(f"blocks are {tuple(blocks)}; each level needs at least one")
    if any(high % low for low, high in zip(channels[:-1], channels[1:])):
        raise PartitaError(f"channels are {tuple(channels)}; each must be a multiple of the one before")


def _levels(channels: Sequence[int], blocks: Sequence[int], **settings: Any) -> nn.ModuleList:
    return nn.ModuleList(
        nn.ModuleList(ConvBlock(width, **settings) for _ in range(count)) for width, count in zip(channels, blocks)
    )


def _run(level: nn.Module, x: Tensor, given: Sequence[Tensor], condition: Tensor | None, maps: list[Tensor]) -> Tensor:
    assert isinstance(level, nn.ModuleList)
    for block in level:
        x = block(merge(x, given[len(maps)]) if len(maps) < len(given) else x, condition)
        maps.append(x)
    return x
