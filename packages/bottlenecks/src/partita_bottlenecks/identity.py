"""The plain autoencoder's bottleneck."""

from partita_core import Bottleneck, BottleneckOutput, config_of, register
from torch import Tensor

from ._common import channel_std, receive, rms


@register("bottleneck/identity")
class Identity(Bottleneck):
    """Hidden frames are the latents: nothing is normalized, bounded, random or penalized.

    The baseline that others are measured against. Nothing ties the scale of its latents, so the metrics watch it:
    `latent_rms`, and `channel_std_min` (a channel near zero is dead).

    Args:
        dim: width of the latents.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = self.in_dim = dim

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """`(batch, dim, tokens)` as it comes, in at least float32; `stochastic` has no effect."""
        values = receive(self, hidden)
        metrics = {"latent_rms": rms(values, lengths), "channel_std_min": channel_std(values, lengths).amin()}
        return BottleneckOutput(values, None, {}, metrics)


IdentityConfig = config_of(Identity)
