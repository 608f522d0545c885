"""A feed-forward decoder, and a loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from partita_core.arrays import as_integers
from partita_core.decoder_roles import FeedForwardDecoder
from partita_core.errors import PartitaError
from partita_core.layouts import ChannelLayout
from partita_core.lengths import length_mask
from partita_core.precision import upcast
from partita_core.roles import Loss
from partita_core.settings import register
from partita_core.specs import AudioSpec, LatentSpec
from torch import Tensor, nn

from ._base import HOP, Tiny


@register("decoder/transposed")
@dataclass(frozen=True)
class TransposedConfig(Tiny):
    """A transposed convolution with a context of one frame to either side."""

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "TransposedDecoder":
        """Build the decoder; its hop is fixed.

        Raises:
            PartitaError: the latents have another hop.
        """
        if latent_spec.hop != HOP:
            raise PartitaError(f"the decoder's hop is {HOP}, the latents' is {latent_spec.hop}")
        return TransposedDecoder(latent_spec=latent_spec, audio_spec=audio_spec)


class TransposedDecoder(FeedForwardDecoder):
    """A transposed convolution of the tokens of each frame, plus an embedding of the layout."""

    context = (1, 1)

    def __init__(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> None:
        super().__init__()
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, HOP, audio_spec
        self.tokens_per_frame = latent_spec.tokens_per_frame
        width = self.in_dim * self.tokens_per_frame
        self.layout = nn.Embedding(len(ChannelLayout), width)
        self.conv = nn.ConvTranspose1d(width, audio_spec.channels, 3 * HOP, stride=HOP, padding=HOP)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """See `FeedForwardDecoder`."""
        frames = hidden.unflatten(2, (-1, self.tokens_per_frame)).transpose(2, 3).flatten(1, 2)
        return torch.tanh(self.conv(frames + self.layout(layout).unsqueeze(-1)))


@register("loss/mean_square")
@dataclass(frozen=True)
class MeanSquareConfig(Tiny):
    """The mean squared difference."""

    def build(self, *, audio_spec: AudioSpec) -> "MeanSquare":
        """Build the loss."""
        return MeanSquare()


class MeanSquare(Loss):
    """The mean squared difference of samples."""

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """See `Loss`."""
        if prediction.shape != target.shape:
            raise PartitaError(f"the prediction is {tuple(prediction.shape)}, the target {tuple(target.shape)}")
        distance = (upcast(prediction) - upcast(target)).square().mean(1)
        if lengths is None:
            return distance.mean(1)
        lengths = as_integers(lengths, "lengths")
        counted = length_mask(lengths, distance.shape[1])
        return torch.where(counted, distance, 0).sum(1) / lengths
