"""Windowed self-attention whose cost is linear in length, and the transformer made of it.

A query at position i sees keys at |i - j| <= window, and a prefix: extra keys and values that every position may attend
to, unrotated and outside the window, so that results depend on relative positions only and tiles equal the whole.
"""

from typing import Literal

import torch
from partita_core import upcast
from torch import Tensor, nn
from torch.nn import functional as F

Prefix = tuple[Tensor, Tensor]


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary position embedding (RoFormer, arXiv 2104.09864, section 3.2) of `(..., length, head_dim)`.

    Args:
        x: queries or keys.
        angles: `(length, head_dim / 2)` from `rotary_angles`.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotary_angles(length: int, head_dim: int, device: torch.device, *, start: Tensor | int = 0) -> Tensor:
    """Angles `(length, head_dim / 2)` of the positions from `start` (`(1,)` int64, or a figure) on.

    They are float64: in float32 tiles would differ from the whole by their rounding.
    """
    rates = 10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
    return (torch.arange(length, dtype=torch.float64, device=device) + start)[:, None] * rates


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, *, angles: Tensor, window: int, prefix: Prefix | None
) -> Tensor:
    """Attention of each query to the keys at most `window` positions away, and to the prefix.

    Queries are taken in blocks of `window`; a block sees its own keys and those of both neighbors, 3 * window in all,
    under one small mask. Time and memory are linear in length.

    Args:
        q: `(batch, heads, length, head_dim)`, not rotated.
        k: likewise.
        v: likewise.
        angles: `(length, head_dim / 2)` from `rotary_angles`.
        window: positions seen to either side, at least 1.
        prefix: keys and values, each `(batch, heads, p, head_dim)`; or None.

    Returns:
        `(batch, heads, length, head_dim)`.
    """
    length, dim = q.shape[-2:]
    # A graph of any length must not depend on whether the blocks are one, or full; two more than needed never are.
    blocks = (length + window - 1) // window if isinstance(length, int) else length // window + 2
    pad = blocks * window - length
    q = q * dim**-0.5

    def in_blocks(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, pad)).unflatten(2, (blocks, window))

    def with_neighbours(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, window, window + pad)).unfold(2, 3 * window, window)

    logits = in_blocks(rotate(q, angles)) @ with_neighbours(rotate(k, angles))
    query = torch.arange(window, device=q.device)[:, None]
    key = torch.arange(3 * window, device=q.device) - window
    begin = torch.arange(blocks, device=q.device)[:, None, None] * window
    seen = ((query - key).abs() <= window) & (begin + key >= 0) & (begin + key < length)
    # The queries that pad the last block may see no key at all; a finite mask keeps their softmax defined.
    logits = upcast(logits).masked_fill(~seen, torch.finfo(torch.float32).min)
    if prefix is None:
        return (logits.softmax(-1).to(v.dtype) @ with_neighbours(v).transpose(-1, -2)).flatten(2, 3)[:, :, :length]
    keys, values = (x.unsqueeze(2) for x in prefix)
    beside = upcast(in_blocks(q) @ keys.transpose(-1, -2).to(q.dtype))
    weights = torch.cat([beside, logits], dim=-1).softmax(-1).to(v.dtype)
    on_prefix, on_window = weights.split([beside.shape[-1], 3 * window], dim=-1)
    y = on_window @ with_neighbours(v).transpose(-1, -2) + on_prefix @ values.to(v.dtype)
    return y.flatten(2, 3)[:, :, :length]


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm over the last axis, in the precision of its weight: under autocast torch would warn."""

    def __init__(self, dim: int) -> None:
        """Starts every gain at 1."""
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., dim)` to as much."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class TransformerBlock(nn.Module):
    """Pre-norm block: RMSNorm, windowed attention with rotary positions; RMSNorm, GELU MLP."""

    def __init__(self, dim: int, *, heads: int, head_dim: int, window: int, mlp_ratio: int) -> None:
        """Builds a block of width `dim`."""
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.attention_norm = RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.mlp_norm = RMSNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))

    def forward(self, x: Tensor, angles: Tensor, prefix: Prefix | None = None) -> Tensor:
        """`(batch, length, dim)` to as much."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = qkv.transpose(1, 3).unbind(2)
        y = windowed_attention(q, k, v, angles=angles, window=self.window, prefix=prefix)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class WindowedTransformer(nn.Module):
    """Transformer blocks over `(batch, dim, frames)`, told by an index which of some conditions holds.

    A condition enters either as a `token`, a learned key and value of each layer that every frame may attend to and
    that is itself never updated (GenAE, arXiv 2602.15749: format tokens), or as a vector to `add` to every frame.
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int,
        heads: int,
        head_dim: int,
        window: int,
        mlp_ratio: int,
        conditions: int,
        condition: Literal["token", "add"] | None,
    ) -> None:
        """Builds `layers` blocks for `conditions` conditions; 0 and None for blocks that are told nothing."""
        super().__init__()
        self.head_dim, self.window, self.condition = head_dim, window, condition
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads=heads, head_dim=head_dim, window=window, mlp_ratio=mlp_ratio)
            for _ in range(layers)
        )
        shape = (conditions, layers, 2, heads, 1, head_dim) if condition == "token" else (conditions, dim)
        # Without layers there is nothing to attend: an empty parameter would only upset optimizers and DDP.
        self.table = nn.Parameter(torch.randn(shape) * 0.02) if 0 not in shape else None

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Maps `(batch, dim, frames)` under the conditions `(batch,)` int64, if there are any, to as much."""
        if self.table is None and len(self.blocks) == 0:
            return x
        x = x.transpose(1, 2)
        chosen = None
        if self.table is not None:
            assert index is not None, "the transformer has conditions; say which of them hold"
            chosen = self.table[index]
        if chosen is not None and self.condition == "add":
            x, chosen = x + chosen.unsqueeze(1), None
        angles = rotary_angles(x.shape[1], self.head_dim, x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, angles, None if chosen is None else (chosen[:, layer, 0], chosen[:, layer, 1]))
        return x.transpose(1, 2)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The first and last input that outputs `first` to `last` see."""
        seen = self.window * len(self.blocks)
        return first - seen, last + seen
