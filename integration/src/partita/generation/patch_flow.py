"""Transformer for flow matching of patches of latents."""

import torch
from partita_blocks import AdaptiveLayerNorm, ChunkTransformerBlock, sinusoidal_embedding
from partita_core import length_mask, process_mean
from partita_losses import flow_interpolation, flow_matching_loss, flow_velocity
from torch import Tensor, nn
from torch.nn import functional as F


class PatchFlow(nn.Module):
    """Velocity of noisy patches, conditioned on one state per patch and on past patches.

    The transformer's tokens are the state, the vectors of past patches and those of the noisy patch; the K vectors of
    a frame are ordinary positions. The time conditions its adaptive norms.

    Args:
        dim: width of the latent vectors.
        states: width of the states.
        tokens: latent vectors per patch.
        history: number of past latent vectors.
        width: width of the transformer.
        layers: layers of the transformer.
        heads: attention heads.
        head_dim: width of an attention head.
    """

    def __init__(
        self,
        dim: int,
        *,
        states: int,
        tokens: int,
        history: int,
        width: int,
        layers: int,
        heads: int,
        head_dim: int,
    ) -> None:
        super().__init__()
        self.dim, self.tokens, self.history = dim, tokens, history
        self.state_in = nn.Linear(states, width)
        self.clean_in, self.noisy_in = nn.Linear(dim, width), nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.randn(1 + history + tokens, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            ChunkTransformerBlock(
                width, heads=heads, head_dim=head_dim, condition_dim=width, dropout=0.0, zero_init=True
            )
            for _ in range(layers)
        )
        self.last_norm = AdaptiveLayerNorm(width, condition_dim=width)
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)

    def velocity(self, x: Tensor, time: Tensor, states: Tensor, history: Tensor) -> Tensor:
        """Predict the velocity of noisy patches.

        Args:
            x: noisy patches `(n, tokens, dim)`.
            time: `(n,)` in [0, 1], 0 for noise.
            states: `(n, states)`.
            history: past vectors `(n, history, dim)`, zeros before the start.

        Returns:
            Velocity `(n, tokens, dim)`.
        """
        tokens = [self.state_in(states)[:, None], self.clean_in(history), self.noisy_in(x)]
        y = torch.cat(tokens, dim=1) + self.positions
        embedded = sinusoidal_embedding(1000 * time, self.positions.shape[-1]).to(self.positions.dtype)
        condition = self.time(embedded)[:, None]
        for block in self.blocks:
            y = block(y, 1, condition)
        return self.last(self.last_norm(y[:, -self.tokens :], condition))

    def forward(self, states: Tensor, values: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the mean squared error of the velocity at a random time per patch.

        Args:
            states: state before each patch, `(batch, patches, states)`.
            values: normalized latents `(batch, dim, vectors)`; the last patch is padded with zeros.
            counts: number of latent vectors per item without padding, `(batch,)` int64.

        Returns:
            The loss, a scalar, and the metric `velocity_error`, the loss relative to the variance of the velocity.
        """
        vectors = F.pad(values, (0, -values.shape[-1] % self.tokens)).mT
        data = vectors.unflatten(1, (-1, self.tokens)).flatten(0, 1)
        before = F.pad(vectors, (0, 0, self.history, 0))[:, : vectors.shape[1] + self.history - self.tokens]
        before = before.unfold(1, self.history, self.tokens).mT if self.history else vectors[:, :0]
        history = before.reshape(len(data), self.history, self.dim)
        noise = torch.randn_like(data)
        time = torch.rand(len(data), device=data.device, dtype=data.dtype)
        x = flow_interpolation(noise, data, time)
        error = flow_matching_loss(self.velocity(x, time, states.flatten(0, 1), history), noise, data)
        inside = length_mask(counts, vectors.shape[1])
        weight = inside.to(error).reshape(len(data), self.tokens, 1)
        total, count = (error * weight).sum(), weight.sum() * self.dim
        velocity = flow_velocity(noise, data)
        mean = (velocity * weight).sum() / count
        variance = ((velocity - mean).square() * weight).sum()
        return process_mean(total, count), {"velocity_error": (total / variance).detach()}
