"""A causal transformer with a key-value state: streamed, it makes what it makes of the whole.

The layers are those of Llama (arXiv 2302.13971, section 2.2): RMSNorm before each half, rotary positions, SwiGLU
(arXiv 2002.05202), no biases.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import RMSNorm, rotary_angles, rotate

Cache = tuple[Tensor, Tensor]
"""Keys, rotated, and values of positions gone by, each `(batch, heads, positions, head_dim)`."""

CausalState = tuple[Tensor, tuple[Cache, ...]]
"""How many positions have gone by, `(1,)` int64, and the cache of each layer."""


class SwiGLU(nn.Module):
    """Gated feed-forward layer: `down(silu(gate(x)) * up(x))` (arXiv 2002.05202)."""

    def __init__(self, dim: int, *, hidden: int, out_dim: int) -> None:
        """Maps width `dim` to `out_dim` through `hidden` gated units."""
        super().__init__()
        self.gate, self.up = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., dim)` to `(..., out_dim)`."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class CausalBlock(nn.Module):
    """Pre-norm block: RMSNorm, causal attention with rotary positions; RMSNorm, SwiGLU."""

    def __init__(self, dim: int, *, heads: int, head_dim: int, mlp_dim: int, window: int | None) -> None:
        """Builds a block of width `dim`."""
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.attention_norm = RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.mlp_norm = RMSNorm(dim)
        self.mlp = SwiGLU(dim, hidden=mlp_dim, out_dim=dim)

    def forward(self, x: Tensor, angles: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """`(batch, length, dim)` at the positions of `angles`, after those in `cache`, with all keys and values."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = qkv.transpose(1, 3).unbind(2)
        q, k = rotate(q, angles), rotate(k, angles)
        if cache is not None:
            k, v = (torch.cat([past.to(new.dtype), new], dim=2) for past, new in zip(cache, (k, v)))
        if cache is None and self.window is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._seen(q, k))
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x)), (k, v)

    def _seen(self, q: Tensor, k: Tensor) -> Tensor:
        """Which keys each query sees, `(queries, keys)`; the last key is the last query's own."""
        keys = torch.arange(k.shape[2], device=k.device)
        queries = torch.arange(q.shape[2], device=k.device)[:, None] + (k.shape[2] - q.shape[2])
        seen = keys <= queries
        return seen if self.window is None else seen & (queries - keys <= self.window)


class CausalTransformer(nn.Module):
    """Causal blocks over `(batch, length, dim)`, without a final norm; a position never sees what comes after it.

    Attributes:
        left_context: positions to the left that the output at a position depends on; None for all of them.
    """

    def __init__(self, dim: int, *, layers: int, heads: int, head_dim: int, mlp_dim: int, window: int | None) -> None:
        """Builds `layers` blocks.

        Args:
            dim: width of input and output.
            layers: how many blocks.
            heads: of attention in a block.
            head_dim: width of a head, even.
            mlp_dim: gated units of a block's SwiGLU.
            window: positions to the left that a layer sees, at least 1, which bounds the state; None for all.
        """
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.left_context = None if window is None else layers * window
        self.blocks = nn.ModuleList(
            CausalBlock(dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim, window=window) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, length, dim)` to as much: a step from a fresh state."""
        angles = rotary_angles(x.shape[1], self.head_dim, x.device)
        for block in self.blocks:
            x, _ = block(x, angles, None)
        return x

    def init_state(self, batch_size: int, *, device: torch.device, dtype: torch.dtype) -> CausalState:
        """The state before the first position."""
        nothing = torch.zeros(batch_size, self.heads, 0, self.head_dim, device=device, dtype=dtype)
        return torch.zeros(1, dtype=torch.int64, device=device), ((nothing, nothing),) * len(self.blocks)

    def step(self, x: Tensor, state: CausalState) -> tuple[Tensor, CausalState]:
        """Continues by `(batch, length, dim)`, of any length; returns as much and the new state."""
        length = x.shape[1]
        if length == 0:
            return x, state
        position, caches = state
        angles = rotary_angles(length, self.head_dim, x.device, start=position)
        kept = []
        for block, cache in zip(self.blocks, caches):
            x, cache = block(x, angles, cache)
            kept.append(_recent(cache, self.window))
        return x, (position + length, tuple(kept))


def _recent(cache: Cache, window: int | None) -> Cache:
    """The keys and values that later positions may see."""
    k, v = cache
    return cache if window is None else (k[:, :, -window:], v[:, :, -window:])
