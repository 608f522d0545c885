"""A bottleneck with a learned gain per channel."""

import torch
from partita_core import Bottleneck, BottleneckOutput, config_of, register, tokens_within, upcast
from partita_core.ranges import Positive
from torch import Tensor, nn


@register("bottleneck/newcomer", example={"initial_gain": 0.5})
class Newcomer(Bottleneck):
    """Latents `gain * hidden`, with a learned gain per channel.

    Args:
        dim: width of the latents.
        initial_gain: gain of all channels before training.
    """

    def __init__(self, dim: int, *, initial_gain: Positive = 1.0) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.gain = nn.Parameter(torch.full((dim,), initial_gain))

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Scale hidden frames.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: unused; nothing is random.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; the metric `latent_rms`.
        """
        values = upcast(hidden) * self.gain[:, None]
        rms = tokens_within(values.detach(), lengths).square().mean().sqrt()
        return BottleneckOutput(values, None, {}, {"latent_rms": rms})


NewcomerConfig = config_of(Newcomer)
