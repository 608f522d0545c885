"""An encoder with one hidden layer per frame of audio."""

from partita_core import AudioSpec, ChannelLayout, Encoder, config_of, register
from partita_core.ranges import Samples
from torch import Tensor, nn


@register("encoder/newcomer", example={"hop": 16})
class Newcomer(Encoder):
    """A strided convolution whose kernel is one frame, conditioned on the channel layout, and a projection.

    Args:
        out_dim: width of the hidden frames.
        audio_spec: format of the input audio.
        hop: samples per frame.
    """

    def __init__(self, out_dim: int, audio_spec: AudioSpec, *, hop: Samples = 480) -> None:
        super().__init__()
        self.out_dim, self.audio_spec, self.hop = out_dim, audio_spec, hop
        self.inner = nn.Conv1d(audio_spec.channels, out_dim, kernel_size=hop, stride=hop)
        self.layout = nn.Embedding(len(ChannelLayout), out_dim)
        self.outer = nn.Conv1d(out_dim, out_dim, 1)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        return self.outer(nn.functional.silu(self.inner(audio) + self.layout(layout)[..., None]))


NewcomerConfig = config_of(Newcomer)
