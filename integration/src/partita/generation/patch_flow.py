"""A flow from noise to the next patch of latents: the transformer that follows it, and its error."""

import torch
from partita_blocks import AdaptiveLayerNorm, ChunkTransformerBlock, sinusoidal_embedding
from partita_core import process_mean
from partita_losses import flow_interpolation, flow_matching_loss, flow_velocity
from torch import Tensor, nn
from torch.nn import functional as F


class PatchFlow(nn.Module):
    """The velocity of noisy patches, conditioned on a state each and on the patches before.

    A transformer sees the state, the patches before and the noisy patch, a token each latent vector, so that the K
    vectors of a frame without order are positions like others; the time enters through the scales of its norms.

    Attributes:
        tokens: latent vectors of a patch.
        history: latent vectors before it that are seen as they are.
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
        """Builds it for latent vectors of width `dim` and states of width `states`."""
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
        """The velocity of noisy patches.

        Args:
            x: `(n, tokens, dim)`.
            time: `(n,)` in [0, 1].
            states: `(n, states)`.
            history: `(n, history, dim)`, zeros where there is nothing before.

        Returns:
            As `x`.
        """
        tokens = [self.state_in(states)[:, None], self.clean_in(history), self.noisy_in(x)]
        y = torch.cat(tokens, dim=1) + self.positions
        embedded = sinusoidal_embedding(1000 * time, self.positions.shape[-1]).to(self.positions.dtype)
        condition = self.time(embedded)[:, None]
        for block in self.blocks:
            y = block(y, 1, condition)
        return self.last(self.last_norm(y[:, -self.tokens :], condition))

    def forward(self, states: Tensor, values: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of the velocity, at a time drawn for each patch.

        Args:
            states: `(batch, patches, states)`, one before each patch.
            values: normalized latents `(batch, dim, vectors)`; zeros fill up the last patch.
            counts: `(batch,)` int64, latent vectors of each item that are not padding.

        Returns:
            The loss, a scalar, and the metric `velocity_error`, the same relative to the variance of the velocity.
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
        inside = torch.arange(vectors.shape[1], device=counts.device) < counts[:, None]
        weight = inside.to(error).reshape(len(data), self.tokens, 1)
        total, count = (error * weight).sum(), weight.sum() * self.dim
        velocity = flow_velocity(noise, data)
        mean = (velocity * weight).sum() / count
        spread = ((velocity - mean).square() * weight).sum()
        return process_mean(total, count), {"velocity_error": (total / spread).detach()}
