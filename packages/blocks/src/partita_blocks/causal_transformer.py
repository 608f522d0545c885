"""Causal transformer with a key-value state, whose streamed output equals that of the full forward.

The layers are those of Llama (arXiv 2302.13971, section 2.2): RMSNorm before attention and MLP, rotary positions,
SwiGLU (arXiv 2002.05202), no biases.
"""

import torch
from einops import rearrange
from partita_core import TypedModule
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import RMSNorm, rotary_angles, rotate

Cache = tuple[Tensor, Tensor]
"""Rotated keys, and values, of past positions, each `(batch, heads, positions, head_dim)`."""

CausalState = tuple[Tensor, tuple[Cache, ...]]
"""Number of past positions, `(1,)` int64, and the cache of each layer."""


class SwiGLU(TypedModule):
    """Gated feed-forward layer `down(silu(gate(x)) * up(x))` (arXiv 2002.05202).

    Args:
        dim: width of the input.
        hidden: number of gated units.
        out_dim: width of the output.
    """

    def __init__(self, dim: int, *, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., dim)` to `(..., out_dim)`."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class CausalBlock(TypedModule):
    """Pre-norm block: RMSNorm, causal attention with rotary positions; RMSNorm, SwiGLU.

    See `CausalTransformer` for the arguments.
    """

    def __init__(self, dim: int, *, heads: int, head_dim: int, mlp_dim: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.attention_norm = RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.mlp_norm = RMSNorm(dim)
        self.mlp = SwiGLU(dim, hidden=mlp_dim, out_dim=dim)

    def forward(self, x: Tensor, angles: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Map `(batch, length, dim)` to the same shape.

        Args:
            x: inputs.
            angles: rotary angles of their positions.
            cache: keys and values of the positions before; None for none.

        Returns:
            The outputs, and the keys and values of all positions.
        """
        qkv = self.qkv(self.attention_norm(x))
        q, k, v = rearrange(qkv, "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        q, k = rotate(q, angles), rotate(k, angles)
        if cache is not None:
            k, v = (torch.cat([past.to(new.dtype), new], dim=2) for past, new in zip(cache, (k, v)))
        if cache is None and self.window is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask(q, k))
        x = x + self.out(rearrange(y, "b h n d -> b n (h d)"))
        return x + self.mlp(self.mlp_norm(x)), (k, v)

    def _mask(self, q: Tensor, k: Tensor) -> Tensor:
        """Mask `(queries, keys)` of the keys that each query attends to; the last key belongs to the last query."""
        keys = torch.arange(k.shape[2], device=k.device)
        queries = torch.arange(q.shape[2], device=k.device)[:, None] + (k.shape[2] - q.shape[2])
        causal = keys <= queries
        return causal if self.window is None else causal & (queries - keys <= self.window)


class CausalTransformer(TypedModule):
    """Causal blocks over `(batch, length, dim)`, without a final norm.

    Args:
        dim: width of input and output.
        layers: number of blocks.
        heads: number of attention heads per block.
        head_dim: width of a head, an even number.
        mlp_dim: number of gated units in the SwiGLU of a block.
        window: positions to the left that each block attends to, at least 1, which bounds the state; None for all.

    Attributes:
        left_context: positions to the left that an output depends on; None for all of them.

    Example:
        >>> model = CausalTransformer(64, layers=2, heads=4, head_dim=16, mlp_dim=256, window=50)
        >>> state = model.init_state(1, device=torch.device("cpu"), dtype=torch.float32)
        >>> y, state = model.step(torch.randn(1, 10, 64), state)  # streaming, any number of positions at a time
    """

    def __init__(self, dim: int, *, layers: int, heads: int, head_dim: int, mlp_dim: int, window: int | None) -> None:
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim, window
        self.left_context = None if window is None else layers * window
        self.blocks = nn.ModuleList(
            CausalBlock(dim, heads=heads, head_dim=head_dim, mlp_dim=mlp_dim, window=window) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, length, dim)` to the same shape, as one step from the initial state."""
        angles = rotary_angles(x.shape[1], self.head_dim, x.device)
        for block in self.blocks:
            x, _ = block(x, angles, None)
        return x

    def init_state(self, batch_size: int, *, device: torch.device, dtype: torch.dtype) -> CausalState:
        """State before the first position."""
        empty = torch.zeros(batch_size, self.heads, 0, self.head_dim, device=device, dtype=dtype)
        return torch.zeros(1, dtype=torch.int64, device=device), ((empty, empty),) * len(self.blocks)

    def step(self, x: Tensor, state: CausalState) -> tuple[Tensor, CausalState]:
        """Continue with `(batch, length, dim)` of any length; return outputs of the same shape and the new state."""
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
    """Keys and values that later positions may attend to."""
    k, v = cache
    return cache if window is None else (k[:, :, -window:], v[:, :, -window:])
