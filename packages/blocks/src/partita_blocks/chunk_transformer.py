"""A transformer over the tokens of a chunk, or of some chunks in a row: full attention within, causal between them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import RMSNorm
from .noise_level import AdaptiveLayerNorm


def chunk_causal_attention(q: Tensor, k: Tensor, v: Tensor, chunks: int) -> Tensor:
    """Attention of every token to all of its own chunk and of those before.

    One call a chunk, each without a mask, which keeps fused kernels and never builds a matrix of all pairs.

    Args:
        q: `(batch, heads, chunks * n, head_dim)`.
        k: likewise.
        v: likewise.
        chunks: how many chunks the tokens are of.

    Returns:
        `(batch, heads, chunks * n, head_dim)`.
    """
    n = q.shape[2] // chunks
    ends = [n * (i + 1) for i in range(chunks)]
    seen = [F.scaled_dot_product_attention(q[:, :, end - n : end], k[:, :, :end], v[:, :, :end]) for end in ends]
    return seen[0] if chunks == 1 else torch.cat(seen, dim=2)


class ChunkTransformerBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + mlp(norm(x))`. There are no biases.

    Queries and keys are RMS-normalised in each head; the MLP is `silu(a) * b` of width `2 * dim`.
    """

    def __init__(
        self, dim: int, *, heads: int, head_dim: int, condition_dim: int | None, dropout: float, zero_init: bool
    ) -> None:
        """Builds a block of width `dim`; see `ChunkTransformer`."""
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
        """`(batch, chunks * n, dim)` to as much."""
        qkv = self.qkv(self.attention_norm(x, condition)).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = qkv.transpose(1, 3).unbind(2)
        y = chunk_causal_attention(self.q_norm(q), self.k_norm(k), v, chunks)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        a, b = self.mlp_in(self.mlp_norm(x, condition)).chunk(2, dim=-1)
        return x + self.mlp_out(self.dropout(F.silu(a) * b))


class ChunkTransformer(nn.Module):
    """Learned positions, a norm, and blocks (CoDiCodec, arXiv 2509.09836; Music2Latent2, arXiv 2501.17578).

    Learned positions make the tokens distinct: a set is what comes out of it, not what it treats alike.
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
        """Builds `layers` blocks of width `dim`.

        Args:
            dim: width of the tokens.
            tokens: tokens of a chunk.
            chunks: chunks that one call takes at most.
            layers: blocks.
            heads: attention heads.
            head_dim: width of a head.
            condition_dim: width of the condition of the blocks' norms; None for none.
            dropout: in the MLPs, in training.
            zero_init: attention and MLPs start at zero, so that the blocks start as the identity.
        """
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
        """Runs the blocks.

        Args:
            x: `(batch, chunks * tokens, dim)`.
            condition: `(batch, chunks, condition_dim)` where norms are conditioned.

        Returns:
            As much; the tokens of a chunk see those of chunks before, never those behind.
        """
        chunks = x.shape[1] // self.tokens
        x = self.norm(x + self.positions[: x.shape[1]])
        for block in self.blocks:
            x = block(x, chunks, condition)
        return x
