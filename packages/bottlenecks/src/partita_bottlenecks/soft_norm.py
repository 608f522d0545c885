"""Soft-norm bottleneck of SAME: one running scale, a weak regularizer toward unit statistics, a little noise."""

import torch
from partita_core import (
    Bottleneck,
    BottleneckOutput,
    config_of,
    is_distributed,
    length_mask,
    mean_within,
    process_mean,
    register,
    tokens_within,
    upcast,
    update_average,
)
from partita_core.ranges import NonNegative, Proportion
from torch import Tensor, distributed, nn

from ._common import channel_std, receive, rms

MIN_VARIANCE = 1e-6  # inside the logarithm, so that the loss of a constant channel is finite


@register("bottleneck/soft_norm")
class SoftNorm(Bottleneck):
    """`y = (h * s_c + b_c) / r`: a learned affine map per channel, divided by one running scalar (SAME).

    As in the released code of SAME (arXiv 2605.18613). `r` is the exponential moving average of the standard deviation
    of all of `h * s_c + b_c`. The values are `y`, which are stored and generated; `expand` multiplies by `r` for the
    decoder. Noise is added to `y`, so that after `expand` the decoder gets `y * r + N(0, (noise * r)^2)` as in the
    released code. The released code adds noise of `0.001 * r` at inference; here evaluation is deterministic.

    The loss `soft_norm` is the mean of `m^2 + v - ln v - 1` over batch and channels, with mean and variance of `y`
    over time, plus `frame_weight` times the same over batch and frames, with mean and variance over channels. Items
    are weighted by their numbers of tokens.

    Args:
        dim: width of the latents.
        noise: standard deviation of the noise in training, relative to the running one of the latents.
        decay: decay of the running standard deviation, per training step.
        weight: weight of the regularizer.
        frame_weight: weight of the statistics of frames, relative to those of channels.
    """

    running_std: Tensor

    def __init__(
        self,
        dim: int,
        *,
        noise: NonNegative = 0.05,
        decay: Proportion = 0.999,
        weight: NonNegative = 1e-5,
        frame_weight: NonNegative = 0.4,
    ) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.noise, self.decay, self.frame_weight = noise, decay, frame_weight
        self.loss_weights = {"soft_norm": weight}
        self.scale = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_std", torch.ones(1))

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Normalize, and add noise if stochastic; stochastic training also updates the running statistic.

        Args:
            hidden: hidden frames `(batch, dim, tokens)`.
            stochastic: True to add noise; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; the loss `soft_norm`; the metrics `latent_rms`, `running_std`,
            `channel_std_min` and `channel_std_max` of the latents without noise.
        """
        hidden = receive(self, hidden)
        stochastic = self.is_stochastic(stochastic)
        scaled = hidden * upcast(self.scale)[:, None] + upcast(self.bias)[:, None]
        if stochastic and self.training:
            self._update(tokens_within(scaled.detach(), lengths))
        clean = scaled / self._current_std()
        values = clean + self.noise * torch.randn_like(clean) if stochastic else clean
        loss = _channels_loss(clean, lengths) + self.frame_weight * _frames_loss(clean, lengths)
        spread = channel_std(clean, lengths)
        metrics = {
            "latent_rms": rms(clean, lengths),
            "running_std": self._current_std().mean(),
            "channel_std_min": spread.amin(),
            "channel_std_max": spread.amax(),
        }
        return BottleneckOutput(values, None, {"soft_norm": loss}, metrics)

    def expand(self, values: Tensor) -> Tensor:
        """Multiply stored latents `(batch, dim, tokens)` by the running standard deviation."""
        return values * self._current_std()

    def _current_std(self) -> Tensor:
        # A clone, because the buffer may change in place before the backward pass.
        return upcast(self.running_std).clone()

    @torch.no_grad()
    def _update(self, scaled: Tensor) -> None:
        """Update the running statistic with the standard deviation of `(count, dim)` over all processes."""
        count = scaled.new_full((1,), scaled.numel())
        total, count = _sum_over_processes(torch.stack([scaled.sum().view(1), count])).unbind()
        squares = _sum_over_processes((scaled - total / count).square().sum().view(1))
        update_average(self.running_std, (squares / count).sqrt(), 1 - self.decay)


SoftNormConfig = config_of(SoftNorm)


def _channels_loss(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of `_distance` over items and channels, with the statistics over time."""
    if lengths is None:
        variance, mean = torch.var_mean(x, dim=2, correction=0)
        return _distance(mean, variance).mean()
    mask = length_mask(lengths, x.shape[2])[:, None].to(x.device)
    count = mask.sum(2).to(x)
    divisor = count.clamp(min=1)  # an item without tokens has weight zero below
    mean = torch.where(mask, x, 0).sum(2) / divisor
    variance = torch.where(mask, x - mean[..., None], 0).square().sum(2) / divisor
    return process_mean((_distance(mean, variance).mean(1) * count[:, 0]).sum(), count.sum())


def _frames_loss(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of `_distance` over tokens, with the statistics over channels."""
    variance, mean = torch.var_mean(x, dim=1, correction=0)
    return mean_within(_distance(mean, variance), lengths)


def _distance(mean: Tensor, variance: Tensor) -> Tensor:
    """`m^2 + v - ln v - 1`; zero at mean 0 and variance 1."""
    return mean.square() + variance - (variance + MIN_VARIANCE).log() - 1


def _sum_over_processes(x: Tensor) -> Tensor:
    if is_distributed():
        distributed.all_reduce(x)
    return x
