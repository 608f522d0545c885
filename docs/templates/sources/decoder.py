"""A decoder with a small convolutional network at the latent rate, and one projection to samples."""

from partita_core import AudioSpec, ChannelLayout, FeedForwardDecoder, LatentSpec, config_of, register
from partita_core.ranges import Frames, Width
from torch import Tensor, nn


@register("decoder/newcomer", example={"width": 8, "reach": 1})
class Newcomer(FeedForwardDecoder):
    """A convolution over frames, conditioned on the channel layout, and a projection of each frame to its samples.

    Args:
        latent_spec: format of the latents.
        audio_spec: format of the output audio.
        width: width of the hidden layer.
        reach: number of frames to either side that the convolution covers.
    """

    def __init__(
        self, latent_spec: LatentSpec, audio_spec: AudioSpec, *, width: Width = 512, reach: Frames = 3
    ) -> None:
        super().__init__()
        self.in_dim, self.hop, self.tokens_per_frame = latent_spec.dim, latent_spec.hop, latent_spec.tokens_per_frame
        self.audio_spec = audio_spec
        # The frames on which one frame of audio depends: `check_decoder` measures them.
        self.context = (reach, reach)
        self.inner = nn.Conv1d(self.in_dim * self.tokens_per_frame, width, 2 * reach + 1, padding=reach)
        self.layout = nn.Embedding(len(ChannelLayout), width)
        self.outer = nn.Conv1d(width, self.hop * audio_spec.channels, 1)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames * K)` of layouts `(batch,)` to `(batch, channels, hop * frames)`."""
        frames = hidden.unflatten(2, (-1, self.tokens_per_frame)).transpose(2, 3).flatten(1, 2)
        inner = nn.functional.silu(self.inner(frames) + self.layout(layout)[:, :, None])
        return self.outer(inner).unflatten(1, (-1, self.hop)).transpose(2, 3).flatten(2)


NewcomerConfig = config_of(Newcomer)
