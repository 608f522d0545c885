"""Bounded bottleneck of Music2Latent2, with safeguards against saturation."""

import torch
from partita_core import Bottleneck, BottleneckOutput, config_of, mean_within, register, tokens_within, upcast
from partita_core.ranges import NonNegative, Positive
from torch import Tensor, nn

from ._common import channel_std, receive, rms

EPS = 1e-6  # inside the root of the RMS: a silent frame stays zero, with a finite gradient
SATURATED = 0.95
HINGE_THRESHOLD = 3.0  # tanh is flat from here on: its slope is 0.01


@register("bottleneck/tanh", example={"hinge_weight": 1e-3})
class Tanh(Bottleneck):
    """Latents in (-1, 1), without noise and without KL divergence (Music2Latent, arXiv 2408.06500).

    Three safeguards against saturation: the vector of every token is divided by its RMS over channels and multiplied
    by one learned gain, so that a growing encoder does not reach the flat ends of the tanh; the metrics report the
    saturation; and a penalty may be added, the loss `hinge`: the mean excess of the tanh's input over 3.

    Args:
        dim: width of the latents.
        gain: initial value of the learned gain, an addition to the paper; None for a plain tanh without normalization,
            as in Music2Latent, which is reported to collapse to plus and minus one in stereo training.
        hinge_weight: weight of the penalty; 0 for no such loss.
    """

    bounded = True

    def __init__(
        self,
        dim: int,
        *,
        gain: Positive | None = 0.5,
        hinge_weight: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.gain = None if gain is None else nn.Parameter(torch.full((1,), gain))
        self.loss_weights = {"hinge": hinge_weight} if hinge_weight > 0 else {}

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Bound `(batch, dim, tokens)`; `stochastic` has no effect.

        Returns:
            Values strictly inside (-1, 1), so that their atanh is finite; the loss `hinge` if it has a weight; the
            metrics `pre_tanh_rms`, `saturated_fraction` (share of values beyond 0.95), `latent_rms`, and
            `channel_std_min` and `channel_std_mean`, the smallest and the mean standard deviation of a channel.
        """
        hidden = receive(self, hidden)
        if self.gain is not None:
            scale = (hidden.square().mean(dim=1, keepdim=True) + EPS).rsqrt()
            hidden = hidden * scale * upcast(self.gain)
        # In float32 the tanh of 9 and more rounds to exactly 1.
        limit = 1 - torch.finfo(hidden.dtype).eps
        values = hidden.tanh().clamp(-limit, limit)
        losses = {}
        if self.loss_weights:
            losses["hinge"] = mean_within((hidden.abs() - HINGE_THRESHOLD).relu().mean(dim=1), lengths)
        spread = channel_std(values, lengths)
        saturated = tokens_within(values.detach(), lengths).abs() > SATURATED
        metrics = {
            "pre_tanh_rms": rms(hidden, lengths),
            "saturated_fraction": saturated.to(values.dtype).mean(),
            "channel_std_min": spread.amin(),
            "channel_std_mean": spread.mean(),
            "latent_rms": rms(values, lengths),
        }
        return BottleneckOutput(values, None, losses, metrics)


TanhConfig = config_of(Tanh)
