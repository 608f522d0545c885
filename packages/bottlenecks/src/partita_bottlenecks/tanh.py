"""The bounded bottleneck of Music2Latent2, guarded against saturation."""

import torch
from partita_core import Bottleneck, BottleneckOutput, config_of, mean_within, register, tokens_within, upcast
from partita_core.ranges import NonNegative, Positive
from torch import Tensor, nn

from ._common import channel_std, receive, rms

_EPS = 1e-6  # inside the root of the RMS: a silent frame stays zero, with a finite gradient
_SATURATED = 0.95


@register("bottleneck/tanh", example={"hinge_weight": 1e-3})
class Tanh(Bottleneck):
    """Latents in (-1, 1), without noise and without KL (Music2Latent, arXiv 2408.06500).

    Guards: the vector of every token is RMS-normalised over its channels and scaled by one learned gain, so the
    encoder cannot push the tanh into its flat ends by growing; the metrics show how near it is; a hinge penalty may
    be added (`hinge`: the mean over everything of how far the input of the tanh lies beyond the threshold).

    Args:
        dim: width of the latents.
        gain: each vector is divided by its RMS and multiplied by a learned gain that starts here, which is ours; None:
            a plain tanh, as in Music2Latent, which others report to collapse to plus and minus one in stereo training.
        hinge_weight: weight of the penalty on what enters the tanh beyond `hinge_threshold`; 0: no such loss.
        hinge_threshold: magnitude from which on it counts.
    """

    bounded = True

    def __init__(
        self,
        dim: int,
        *,
        gain: Positive | None = 0.5,
        hinge_weight: NonNegative = 0.0,
        hinge_threshold: NonNegative = 3.0,
    ) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.gain = None if gain is None else nn.Parameter(torch.full((1,), gain))
        self.hinge_threshold = hinge_threshold
        self.loss_weights = {"hinge": hinge_weight} if hinge_weight > 0 else {}

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Bound `(batch, dim, tokens)`; `stochastic` has no effect.

        Returns:
            values strictly inside (-1, 1), so that atanh of them is finite; metrics `pre_tanh_rms`,
            `saturated_fraction` (of values beyond 0.95), `latent_rms`, and the smallest and mean standard deviation of
            a channel, `channel_std_min` and `channel_std_mean`.
        """
        hidden = receive(self, hidden)
        if self.gain is not None:
            scale = (hidden.square().mean(dim=1, keepdim=True) + _EPS).rsqrt()
            hidden = hidden * scale * upcast(self.gain)
        # tanh rounds to exactly 1 from about 9 on in float32.
        limit = 1 - torch.finfo(hidden.dtype).eps
        values = hidden.tanh().clamp(-limit, limit)
        losses = {}
        if self.loss_weights:
            losses["hinge"] = mean_within((hidden.abs() - self.hinge_threshold).relu().mean(dim=1), lengths)
        spread = channel_std(values, lengths)
        saturated = tokens_within(values.detach(), lengths).abs() > _SATURATED
        metrics = {
            "pre_tanh_rms": rms(hidden, lengths),
            "saturated_fraction": saturated.to(values.dtype).mean(),
            "channel_std_min": spread.amin(),
            "channel_std_mean": spread.mean(),
            "latent_rms": rms(values, lengths),
        }
        return BottleneckOutput(values, None, losses, metrics)


TanhConfig = config_of(Tanh)
