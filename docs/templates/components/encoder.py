"""Newcomer: an encoder that projects each frame of audio on its own."""

from dataclasses import dataclass
from typing import Self

from partita_core import AudioSpec, ChannelLayout, Config, Encoder, register
from partita_core.ranges import Samples
from torch import Tensor, nn


@register("encoder/newcomer")
@dataclass(frozen=True)
class NewcomerConfig(Config):
    """One linear map a frame.

    Attributes:
        hop: samples in a frame.
    """

    hop: Samples = 480

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "Newcomer":
        """The encoder of audio of `audio_spec` to hidden frames of width `out_dim`."""
        return Newcomer(out_dim=out_dim, audio_spec=audio_spec, hop=self.hop)

    @classmethod
    def example(cls) -> Self:
        """One with short frames."""
        return cls(hop=16)


class Newcomer(Encoder):
    """A strided convolution as wide as its stride, and a learned vector for each channel layout."""

    def __init__(self, *, out_dim: int, audio_spec: AudioSpec, hop: int) -> None:
        super().__init__()
        self.out_dim, self.audio_spec, self.hop = out_dim, audio_spec, hop
        self.project = nn.Conv1d(audio_spec.channels, out_dim, kernel_size=hop, stride=hop)
        self.layout = nn.Embedding(len(ChannelLayout), out_dim)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encodes `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        return self.project(audio) + self.layout(layout)[..., None]
