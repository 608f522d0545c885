"""Newcomer: a decoder that makes each frame of audio from its latents alone."""

from dataclasses import dataclass
from typing import Self

from partita_core import AudioSpec, ChannelLayout, Config, FeedForwardDecoder, LatentSpec, register
from partita_core.ranges import Width
from torch import Tensor, nn


@register("decoder/newcomer")
@dataclass(frozen=True)
class NewcomerConfig(Config):
    """A small perceptron a frame.

    Attributes:
        width: of its hidden layer.
    """

    width: Width = 512

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "Newcomer":
        """The decoder of latents of `latent_spec` to audio of `audio_spec`."""
        return Newcomer(latent_spec=latent_spec, audio_spec=audio_spec, width=self.width)

    @classmethod
    def example(cls) -> Self:
        """A narrow one."""
        return cls(width=8)


class Newcomer(FeedForwardDecoder):
    """Two layers on all tokens of a frame, the first with a learned vector for each channel layout."""

    def __init__(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec, width: int) -> None:
        super().__init__()
        self.in_dim, self.hop, self.tokens_per_frame = latent_spec.dim, latent_spec.hop, latent_spec.tokens_per_frame
        self.audio_spec = audio_spec
        self.inner = nn.Linear(self.in_dim * self.tokens_per_frame, width)
        self.layout = nn.Embedding(len(ChannelLayout), width)
        self.outer = nn.Linear(width, self.hop * audio_spec.channels)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decodes `(batch, in_dim, frames * K)` to `(batch, channels, hop * frames)`."""
        frames = hidden.transpose(1, 2).unflatten(1, (-1, self.tokens_per_frame)).flatten(2)
        inner = nn.functional.silu(self.inner(frames) + self.layout(layout)[:, None])
        return self.outer(inner).unflatten(2, (self.hop, -1)).flatten(1, 2).transpose(1, 2)
