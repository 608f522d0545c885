"""Convolutions between a spectrogram and a small map whose points are tokens: patchifier and de-patchifier.

The layout is that of CoDiCodec (arXiv 2509.09836). Maps are `(batch, channels, rows, columns)`, rows being frequencies
and columns frames. They are fastest in the channels-last memory format, which all here keep, and in which the tokens
of a map are a view of it.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from partita_core import PartitaError
from torch import Tensor, nn
from torch.nn import functional as F

from .noise_level import AdaptiveGroupNorm

Stride = tuple[int, int]


def merge(x: Tensor, other: Tensor) -> Tensor:
    """The sum of two maps of unit variance, again of unit variance."""
    return (x + other) * 0.5**0.5


class ConvBlock(nn.Module):
    """`x + conv(silu(conv(norm(x))))`."""

    def __init__(self, channels: int, *, condition_dim: int | None, dropout: float, zero_init: bool) -> None:
        """Builds a block.

        Args:
            channels: width of the map.
            condition_dim: width of the condition of its norm; None for none.
            dropout: between the convolutions, in training.
            zero_init: the last convolution starts at zero, so that the block starts as the identity.
        """
        super().__init__()
        self.norm = AdaptiveGroupNorm(channels, condition_dim=condition_dim)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if zero_init:
            nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """A map, and the condition `(batch, condition_dim)` if there is one, to a map of the same size."""
        return x + self.outer(self.dropout(F.silu(self.inner(self.norm(x, condition)))))


class PatchDown(nn.Module):
    """Lowers the resolution: a convolution, beside the average of each patch.

    The shortcut's channels are repeated up to the new width.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: Stride, condition_dim: int | None, zero_init: bool
    ) -> None:
        """Builds the stage; patches of `stride` rows and columns do not overlap. See `ConvBlock` for the rest."""
        super().__init__()
        self.stride, self.repeats = stride, channels_out // channels_in
        self.norm = AdaptiveGroupNorm(channels_in, condition_dim=condition_dim)
        self.conv = nn.Conv2d(channels_in, channels_out, stride, stride, bias=False)
        if zero_init:
            nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """`(batch, channels_in, rows, columns)` to `(batch, channels_out, rows / stride[0], columns / stride[1])`."""
        shortcut = torch.cat([F.avg_pool2d(x, self.stride)] * self.repeats, dim=1)
        return self.conv(self.norm(x, condition)) + shortcut


class PatchUp(nn.Module):
    """Raises the resolution: a transposed convolution that starts at zero, beside the nearest neighbor.

    The shortcut's channels are averaged down to the new width: it undoes that of `PatchDown`.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: Stride, condition_dim: int | None) -> None:
        """Builds the stage; each point becomes a patch of `stride` rows and columns."""
        super().__init__()
        self.scale, self.repeats = (float(stride[0]), float(stride[1])), channels_in // channels_out
        self.norm = AdaptiveGroupNorm(channels_in, condition_dim=condition_dim)
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, stride, stride, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """`(batch, channels_in, rows, columns)` to `(batch, channels_out, rows * stride[0], columns * stride[1])`."""
        shortcut = x.unflatten(1, (self.repeats, -1)).mean(1)
        shortcut = F.interpolate(shortcut, scale_factor=self.scale, mode="nearest")
        return self.conv(self.norm(x, condition)) + shortcut


class Patchifier(nn.Module):
    """From full resolution down to tokens: at each level some blocks, between levels a `PatchDown`."""

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
        """Builds the levels.

        Args:
            channels: width of each level, from full resolution on; each a multiple of the one before.
            strides: rows and columns that become one, between each level and the next.
            blocks: blocks of each level, at least one.
            condition_dim: width of the condition of all norms; None for none.
            dropout: in the blocks, in training.
            zero_init: the residual branches start at zero. In an encoder this makes all inputs alike at first; see
                `SummaryEncoderConfig`.

        Raises:
            PartitaError: the figures do not fit.
        """
        super().__init__()
        _check(channels, strides, blocks)
        self.levels = _levels(channels, blocks, condition_dim=condition_dim, dropout=dropout, zero_init=zero_init)
        self.downs = nn.ModuleList(
            PatchDown(low, high, stride=stride, condition_dim=condition_dim, zero_init=zero_init)
            for low, high, stride in zip(channels[:-1], channels[1:], strides)
        )

    def forward(self, x: Tensor, *, features: Sequence[Tensor] = (), condition: Tensor | None = None) -> list[Tensor]:
        """Runs the levels.

        Args:
            x: a map of the first width, whose rows and columns are multiples of the product of the strides.
            features: maps to merge before each block, in the order of the blocks; empty for none.
            condition: `(batch, condition_dim)` where norms are conditioned.

        Returns:
            The map after each block; the last is the result.
        """
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index:
                x = self.downs[index - 1](x, condition)
            x = _run(level, x, features, condition, maps)
        return maps


class Depatchifier(nn.Module):
    """From tokens up to full resolution: the mirror image of a `Patchifier`. Its residual branches start at zero."""

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[Stride],
        blocks: Sequence[int],
        condition_dim: int | None,
        dropout: float,
    ) -> None:
        """Builds the levels; the figures are those of the `Patchifier` that it mirrors, from full resolution on.

        Raises:
            PartitaError: the figures do not fit.
        """
        super().__init__()
        _check(channels, strides, blocks)
        channels, strides, blocks = channels[::-1], strides[::-1], blocks[::-1]
        self.levels = _levels(channels, blocks, condition_dim=condition_dim, dropout=dropout, zero_init=True)
        self.ups = nn.ModuleList(
            PatchUp(high, low, stride=stride, condition_dim=condition_dim)
            for high, low, stride in zip(channels[:-1], channels[1:], strides)
        )

    def forward(self, x: Tensor, *, skips: Sequence[Tensor] = (), condition: Tensor | None = None) -> list[Tensor]:
        """Runs the levels.

        Args:
            x: a map of the last width.
            skips: maps to merge before each block, in the order of the blocks, so those of the patchifier reversed;
                empty for none.
            condition: `(batch, condition_dim)` where norms are conditioned.

        Returns:
            The map after each block, each of the size that the patchifier's has at its mirrored place; the last is
            the result.
        """
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            if index:
                x = self.ups[index - 1](x, condition)
            x = _run(level, x, skips, condition, maps)
        return maps


def patch_grid(rows: int, columns: int, strides: Sequence[Stride]) -> tuple[int, int]:
    """Rows and columns of tokens that a `Patchifier` of these strides makes of a map.

    Raises:
        PartitaError: they do not divide it.
    """
    down, along = prod(stride[0] for stride in strides), prod(stride[1] for stride in strides)
    if rows % down or columns % along:
        raise PartitaError(f"strides {tuple(strides)} do not divide a map of {rows} rows and {columns} columns")
    return rows // down, columns // along


def _check(channels: Sequence[int], strides: Sequence[Stride], blocks: Sequence[int]) -> None:
    if not len(channels) == len(blocks) == len(strides) + 1:
        raise PartitaError(
            f"{len(channels)} widths, {len(blocks)} numbers of blocks and {len(strides)} strides do not make levels; "
            f"give as many widths as numbers of blocks, and one stride less"
        )
    if min(blocks) < 1:
        raise PartitaError(f"levels of {tuple(blocks)} blocks: each needs at least one")
    if any(high % low for low, high in zip(channels[:-1], channels[1:])):
        raise PartitaError(f"widths {tuple(channels)}: each must be a multiple of the one before")


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
