"""Encoders: one with bounded context, and one with a state."""

from dataclasses import dataclass

import torch
from partita_core.errors import PartitaError
from partita_core.layouts import ChannelLayout
from partita_core.roles import Encoder
from partita_core.settings import register
from partita_core.specs import AudioSpec
from partita_core.zero_start import set_to_zero
from torch import Tensor, nn

from ._base import HOP, Tiny


@register("encoder/strided")
@dataclass(frozen=True)
class StridedConfig(Tiny):
    """A strided convolution with a context of one frame to either side.

    Attributes:
        tokens_per_frame: tokens per frame; if more than one, they have no order.
    """

    tokens_per_frame: int = 1

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "StridedEncoder":
        """Build the encoder."""
        return StridedEncoder(out_dim=out_dim, audio_spec=audio_spec, tokens_per_frame=self.tokens_per_frame)


class StridedEncoder(Encoder):
    """Weight-normed convolution, plus an embedding of the layout, and tanh."""

    context = (1, 1)

    def __init__(self, *, out_dim: int, audio_spec: AudioSpec, tokens_per_frame: int) -> None:
        super().__init__()
        self.out_dim, self.hop, self.audio_spec = out_dim, HOP, audio_spec
        self.tokens_per_frame, self.ordered = tokens_per_frame, tokens_per_frame == 1
        width = out_dim * tokens_per_frame
        conv = nn.Conv1d(audio_spec.channels, width, 3 * HOP, stride=HOP, padding=HOP)
        self.conv = nn.utils.parametrizations.weight_norm(conv)
        self.layout = nn.Embedding(len(ChannelLayout), width)

    def start_at_zero(self) -> None:
        """See `Role`: the convolution and the embedding of the layout are added."""
        set_to_zero(self.conv)
        set_to_zero(self.layout)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """See `Encoder`."""
        hidden = torch.tanh(self.conv(audio) + self.layout(layout).unsqueeze(-1))
        return hidden.unflatten(1, (self.out_dim, -1)).transpose(2, 3).flatten(2)


@register("encoder/cumulative")
@dataclass(frozen=True)
class CumulativeConfig(Tiny):
    """An encoder with unbounded context to the left, carried as a state."""

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "CumulativeEncoder":
        """Build the encoder."""
        return CumulativeEncoder(out_dim=out_dim, audio_spec=audio_spec)


class CumulativeEncoder(Encoder):
    """The cumulative sum of projected frames; the state is the sum so far."""

    context = (None, 0)

    def __init__(self, *, out_dim: int, audio_spec: AudioSpec) -> None:
        super().__init__()
        self.out_dim, self.hop, self.audio_spec = out_dim, HOP, audio_spec
        self.project = nn.Linear(HOP * audio_spec.channels, out_dim)
        self.layout = nn.Embedding(len(ChannelLayout), out_dim)

    def start_at_zero(self) -> None:
        """See `Role`: the sum starts with the embedding of the layout."""
        set_to_zero(self.project)
        set_to_zero(self.layout)

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Start the sum with the embedding of the layout."""
        if layout is None:
            raise PartitaError("layout is None; this encoder needs the channel layout of each item")
        return self.layout(layout.to(device)).to(dtype).unsqueeze(-1)

    def step(self, x: Tensor, state: Tensor, *, last: bool = False) -> tuple[Tensor, Tensor]:
        """Continue the sum over full frames of audio."""
        frames = x.unflatten(-1, (-1, HOP)).permute(0, 2, 1, 3).flatten(2)
        sums = torch.cat([state, self.project(frames).transpose(1, 2)], dim=-1).cumsum(-1)
        return torch.sin(sums[..., 1:]), sums[..., -1:]

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """See `Encoder`."""
        state = self.init_state(audio.shape[0], layout=layout, device=audio.device, dtype=audio.dtype)
        return self.step(audio, state, last=True)[0]
