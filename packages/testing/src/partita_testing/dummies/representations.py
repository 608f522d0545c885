"""Representation encoders: one with a state, and one with bounded context."""

from dataclasses import dataclass

import torch
from partita_core.representation_role import RepresentationEncoder
from partita_core.settings import register
from partita_core.specs import LatentSpec
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Tiny


@register("representation/averaging")
@dataclass(frozen=True)
class AveragingConfig(Tiny):
    """Features with unbounded context to the left.

    Attributes:
        width: number of channels of the features.
    """

    width: int = 5

    def build(self, *, latent_spec: LatentSpec) -> "AveragingEncoder":
        """Build the representation encoder."""
        return AveragingEncoder(latent_spec=latent_spec, width=self.width)


class AveragingEncoder(RepresentationEncoder):
    """The sine of the cumulative sum of projected frames; the state is the sum so far."""

    context = (None, 0)

    def __init__(self, *, latent_spec: LatentSpec, width: int) -> None:
        super().__init__()
        self.dim, self.tokens_per_frame, self.width = latent_spec.dim, latent_spec.tokens_per_frame, width
        self.project = nn.Linear(self.dim * self.tokens_per_frame, width)

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Start the sum at zero."""
        return torch.zeros(batch_size, 1, self.width, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Tensor, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """Continue the sum over full frames of latents."""
        frames = x.unflatten(-1, (-1, self.tokens_per_frame)).permute(0, 2, 3, 1).flatten(2)
        sums = torch.cat([state, self.project(frames)], dim=1).cumsum(1)
        return torch.sin(sums[:, 1:]), sums[:, -1:]

    def forward(self, values: Tensor) -> Tensor:
        """See `RepresentationEncoder`."""
        state = self.init_state(values.shape[0], device=values.device, dtype=values.dtype)
        return self.step(values, state, last=True)[0]


@register("representation/neighboring")
@dataclass(frozen=True)
class NeighboringConfig(Tiny):
    """Features with a context of two frames to the left and one to the right."""

    def build(self, *, latent_spec: LatentSpec) -> "NeighboringEncoder":
        """Build the representation encoder."""
        return NeighboringEncoder(latent_spec=latent_spec)


class NeighboringEncoder(RepresentationEncoder):
    """One convolution over frames, and tanh."""

    context = (2, 1)

    def __init__(self, *, latent_spec: LatentSpec) -> None:
        super().__init__()
        self.dim, self.tokens_per_frame, self.width = latent_spec.dim, latent_spec.tokens_per_frame, 5
        k = self.tokens_per_frame
        self.conv = nn.Conv1d(self.dim, self.width, 4 * k, stride=k)

    def forward(self, values: Tensor) -> Tensor:
        """See `RepresentationEncoder`."""
        k = self.tokens_per_frame
        return torch.tanh(self.conv(F.pad(values, (2 * k, k)))).mT
