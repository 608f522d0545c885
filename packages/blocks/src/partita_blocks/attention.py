"""Windowed self-attention with a cost linear in length, and a transformer of it.

A query at position i attends to the keys at |i - j| <= window and to a prefix: extra keys and values without rotary
position that all queries attend to. Results depend on relative positions only, so tiles with context equal the full
forward.
"""

import torch
from einops import rearrange
from partita_core import TypedModule, upcast
from torch import Tensor, nn
from torch.nn import functional as F

Prefix = tuple[Tensor, Tensor]
"""Keys and values, each `(batch, heads, p, head_dim)`."""


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary position embedding (RoFormer, arXiv 2104.09864, section 3.2).

    Args:
        x: queries or keys `(..., length, head_dim)`.
        angles: `(length, head_dim / 2)` from `rotary_angles`.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotary_angles(length: int, head_dim: int, device: torch.device, *, start: Tensor | int = 0) -> Tensor:
    """Angles `(length, head_dim / 2)` of the positions from `start` on, a number or `(1,)` int64.

    They are float64, since rounding in float32 would make tiles differ from the full forward.
    """
    rates = 10000.0 ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
    return (torch.arange(length, dtype=torch.float64, device=device) + start)[:, None] * rates


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, *, angles: Tensor, window: int, prefix: Prefix | None
) -> Tensor:
    """Attention of each query to the keys at most `window` positions away, and to the prefix.

    Queries are processed in blocks of `window`; a block attends to its own keys and those of both neighbors,
    3 * window in all, under one small mask. Time and memory are linear in length.

    Args:
        q: queries `(batch, heads, length, head_dim)`, not rotated.
        k: keys of the same shape, not rotated.
        v: values of the same shape.
        angles: `(length, head_dim / 2)` from `rotary_angles`.
        window: positions on either side to attend to, at least 1.
        prefix: keys and values that all queries attend to, or None.

    Returns:
        `(batch, heads, length, head_dim)`.
    """
    length, dim = q.shape[-2:]
    # While tracing, two spare blocks make the graph the same for every length, be it one block or several, full or not.
    blocks = (length + window - 1) // window if isinstance(length, int) else length // window + 2
    pad = blocks * window - length
    q = q * dim**-0.5

    def in_blocks(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, pad)).unflatten(2, (blocks, window))

    def with_neighbors(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, window, window + pad)).unfold(2, 3 * window, window)

    logits = in_blocks(rotate(q, angles)) @ with_neighbors(rotate(k, angles))
    query = torch.arange(window, device=q.device)[:, None]
    key = torch.arange(3 * window, device=q.device) - window
    begin = torch.arange(blocks, device=q.device)[:, None, None] * window
    seen = ((query - key).abs() <= window) & (begin + key >= 0) & (begin + key < length)
    # Queries that pad the last block may have no key at all; a finite mask keeps their softmax defined.
    logits = upcast(logits).masked_fill(~seen, torch.finfo(torch.float32).min)
    if prefix is None:
        return (logits.softmax(-1).to(v.dtype) @ with_neighbors(v).transpose(-1, -2)).flatten(2, 3)[:, :, :length]
    keys, values = (x.unsqueeze(2) for x in prefix)
    prefix_logits = upcast(in_blocks(q) @ keys.transpose(-1, -2).to(q.dtype))
    weights = torch.cat([prefix_logits, logits], dim=-1).softmax(-1).to(v.dtype)
    on_prefix, on_window = weights.split([prefix_logits.shape[-1], 3 * window], dim=-1)
    y = on_window @ with_neighbors(v).transpose(-1, -2) + on_prefix @ values.to(v.dtype)
    return y.flatten(2, 3)[:, :, :length]


class RMSNorm(nn.RMSNorm, TypedModule):
    """Root-mean-square norm over the last axis, in the precision of its weight; torch's own warns under autocast."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `(..., dim)`."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class TransformerBlock(TypedModule):
    """Pre-norm block: RMSNorm, windowed attention with rotary positions; RMSNorm, GELU MLP.

    See `WindowedTransformer` for the arguments.
    """

    def __init__(self, dim: int, *, heads: int, head_dim: int, window: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.attention_norm = RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.mlp_norm = RMSNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))

    def forward(self, x: Tensor, angles: Tensor, prefix: Prefix | None = None) -> Tensor:
        """Map `(batch, length, dim)` to the same shape, with `angles` from `rotary_angles`."""
        qkv = self.qkv(self.attention_norm(x))
        q, k, v = rearrange(qkv, "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        y = windowed_attention(q, k, v, angles=angles, window=self.window, prefix=prefix)
        x = x + self.out(rearrange(y, "b h n d -> b n (h d)"))
        return x + self.mlp(self.mlp_norm(x))


class WindowedTransformer(TypedModule):
    """Transformer blocks with windowed attention over `(batch, dim, frames)`, conditioned on a class per item.

    The condition is a token: a learned key and value per layer and class that every frame attends to (the format tokens
    of GenAE, arXiv 2602.15749).

    Args:
        dim: width of input and output.
        layers: number of blocks.
        heads: number of attention heads per block.
        head_dim: width of a head, an even number.
        window: frames on either side that each block attends to.
        mlp_ratio: width of the MLPs, in multiples of `dim`.
        conditions: number of classes; 0 without conditions.

    Example:
        >>> model = WindowedTransformer(64, layers=2, heads=4, head_dim=16, window=25, mlp_ratio=4, conditions=3)
        >>> model(torch.randn(2, 64, 100), torch.tensor([0, 2])).shape
        torch.Size([2, 64, 100])
        >>> model.reach(40, 40)  # input frames that output frame 40 depends on
        (-10, 90)
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
        conditions: int = 0,
    ) -> None:
        super().__init__()
        self.head_dim, self.window = head_dim, window
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads=heads, head_dim=head_dim, window=window, mlp_ratio=mlp_ratio)
            for _ in range(layers)
        )
        shape = (conditions, layers, 2, heads, 1, head_dim)
        # No empty parameter for zero layers: optimizers and DDP do not accept it.
        self.table = nn.Parameter(torch.randn(shape) * 0.02) if 0 not in shape else None

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Map `(batch, dim, frames)` to the same shape, given the class `index` of each item, `(batch,)` int64."""
        if self.table is None and len(self.blocks) == 0:
            return x
        x = x.transpose(1, 2)
        chosen = None
        if self.table is not None:
            assert index is not None, "the transformer is conditioned; pass the class of each item as `index`"
            chosen = self.table[index]
        angles = rotary_angles(x.shape[1], self.head_dim, x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, angles, None if chosen is None else (chosen[:, layer, 0], chosen[:, layer, 1]))
        return x.transpose(1, 2)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """First and last input frame that the output frames `first` to `last` depend on."""
        context = self.window * len(self.blocks)
        return first - context, last + context
