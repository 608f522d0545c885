"""Transformer over the tokens of consecutive chunks: full attention within a chunk, causal between chunks."""

import torch
from einops import rearrange
from partita_core import TypedModule
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import RMSNorm
from .noise_conditioning import AdaptiveLayerNorm


def chunk_causal_attention(q: Tensor, k: Tensor, v: Tensor, chunks: int) -> Tensor:
    """Attention of every token to all tokens of its own chunk and of the chunks before.

    There is one attention call per chunk without a mask, which permits fused kernels and avoids a matrix of all pairs.

    Args:
        q: queries `(batch, heads, chunks * n, head_dim)`.
        k: keys of the same shape.
        v: values of the same shape.
        chunks: number of chunks.

    Returns:
        `(batch, heads, chunks * n, head_dim)`.
    """
    n = q.shape[2] // chunks
    ends = [n * (i + 1) for i in range(chunks)]
    outputs = [F.scaled_dot_product_attention(q[:, :, end - n : end], k[:, :, :end], v[:, :, :end]) for end in ends]
    return outputs[0] if chunks == 1 else torch.cat(outputs, dim=2)


class ChunkTransformerBlock(TypedModule):
    """Pre-norm block `x + attention(norm(x))`, then `x + mlp(norm(x))`, without biases.

    Queries and keys are RMS-normalized in each head; the MLP is `silu(a) * b` of width `2 * dim`. See
    `ChunkTransformer` for the arguments.
    """

    def __init__(
        self, dim: int, *, heads: int, head_dim: int, condition_dim: int | None, dropout: float, zero_init: bool
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.attention_norm = AdaptiveLayerNorm(dim, condition_dim=condition_dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.q_norm, self.k_norm = RMSNorm(head_dim), RMSNorm(head_dim)
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.mlp_norm = AdaptiveLayerNorm(dim, condition_dim=condition_dim)
        self.mlp_in = nn.Linear(dim, 4 * dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.mlp_out = nn.Linear(2 * dim, dim, bias=False)
        if zero_init:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.mlp_out.weight)

    def forward(self, x: Tensor, chunks: int, condition: Tensor | None) -> Tensor:
        """Map tokens `(batch, chunks * n, dim)` to the same shape; `condition` is `(batch, chunks, condition_dim)`."""
        qkv = self.qkv(self.attention_norm(x, condition))
        q, k, v = rearrange(qkv, "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        y = chunk_causal_attention(self.q_norm(q), self.k_norm(k), v, chunks)
        x = x + self.out(rearrange(y, "b h n d -> b n (h d)"))
        a, b = self.mlp_in(self.mlp_norm(x, condition)).chunk(2, dim=-1)
        return x + self.mlp_out(self.dropout(F.silu(a) * b))


class ChunkTransformer(TypedModule):
    """Learned positions, a norm, and blocks (CoDiCodec, arXiv 2509.09836; Music2Latent2, arXiv 2501.17578).

    The learned positions distinguish the tokens; the transformer is not equivariant to their order.

    Args:
        dim: width of the tokens.
        tokens: tokens per chunk.
        chunks: maximum number of chunks per call.
        layers: number of blocks.
        heads: number of attention heads per block.
        head_dim: width of a head.
        condition_dim: width of the condition of the norms of the blocks; None without one.
        dropout: dropout probability in the MLPs.
        zero_init: initialize the outputs of attention and MLPs with zeros, so that the blocks start as the identity.

    Example:
        >>> sizes = {"layers": 2, "heads": 4, "head_dim": 16, "condition_dim": None, "dropout": 0.0}
        >>> model = ChunkTransformer(64, tokens=8, chunks=3, zero_init=True, **sizes)
        >>> model(torch.randn(1, 24, 64)).shape  # the tokens of three chunks; those of the first ignore the others
        torch.Size([1, 24, 64])
    """

    def __init__(
        self,
        dim: int,
        *,
        tokens: int,
        chunks: int,
        layers: int,
        heads: int,
        head_dim: int,
        condition_dim: int | None,
        dropout: float,
        zero_init: bool,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.positions = nn.Parameter(torch.randn(chunks * tokens, dim) * dim**-0.5)
        self.norm = nn.LayerNorm(dim, eps=1e-4, bias=False)
        self.blocks = nn.ModuleList(
            ChunkTransformerBlock(
                dim,
                heads=heads,
                head_dim=head_dim,
                condition_dim=condition_dim,
                dropout=dropout,
                zero_init=zero_init,
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map tokens to the same shape; those of a chunk depend on that chunk and the ones before it.

        Args:
            x: `(batch, chunks * tokens, dim)`.
            condition: `(batch, chunks, condition_dim)` condition of the norms; None without one.
        """
        chunks = x.shape[1] // self.tokens
        x = self.norm(x + self.positions[: x.shape[1]])
        for block in self.blocks:
            x = block(x, chunks, condition)
        return x
