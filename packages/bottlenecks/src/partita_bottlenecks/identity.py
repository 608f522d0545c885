"""Bottleneck of a plain autoencoder."""

from partita_core import Bottleneck, BottleneckOutput, config_of, register
from torch import Tensor

from ._common import channel_std, receive, rms


@register("bottleneck/identity")
class Identity(Bottleneck):
    """Identity: hidden frames as latents, without normalization, bounds, noise or penalty; the baseline.

    The scale of the latents is free. The metrics report it: `latent_rms`, and `channel_std_min`, which is near zero if
    a channel is dead.

    Args:
        dim: width of the latents.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = self.in_dim = dim

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Return `(batch, dim, tokens)` unchanged, in at least float32; `stochastic` has no effect."""
        values = receive(self, hidden)
        metrics = {"latent_rms": rms(values, lengths), "channel_std_min": channel_std(values, lengths).amin()}
        return BottleneckOutput(values, None, {}, metrics)


IdentityConfig = config_of(Identity)
