"""Sigma-VAE bottleneck: a learned mean, and noise with a random amplitude that is not learned."""

import torch
from partita_core import Bottleneck, BottleneckOutput, config_of, mean_within, register
from partita_core.ranges import NonNegative
from torch import Tensor

from ._common import channel_std, receive, rms


@register("bottleneck/sigma_vae")
class SigmaVAE(Bottleneck):
    """`z = mu + s * e` with `e ~ N(0, 1)` and one `s ~ N(0, sigma^2)` per example (LatentLM, VibeVoice).

    The encoder does not control the variance, so the posterior cannot collapse. The KL divergence reduces to the mean
    of `mu^2`, the loss `kl`. The scale of the latents is free: `latent_rms` reports it, and `channel_std_min` is near
    zero if a channel is dead.

    Args:
        dim: width of the latents.
        sigma: standard deviation of the amplitude of the noise.
        kl_weight: weight of the mean square of the means, a mean over channels too: 1e-2 with 64 channels is close
            to the VAE's 1e-4, which applies to a sum.
    """

    def __init__(self, dim: int, *, sigma: NonNegative = 0.625, kl_weight: NonNegative = 1e-2) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.sigma = sigma
        self.loss_weights = {"kl": kl_weight}

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Add noise to `(batch, dim, tokens)` if stochastic, or return it unchanged."""
        mean = receive(self, hidden)
        values = mean
        if self.is_stochastic(stochastic):
            amplitude = self.sigma * torch.randn(mean.shape[0], 1, 1, dtype=mean.dtype, device=mean.device)
            values = mean + amplitude * torch.randn_like(mean)
        kl = mean_within(mean.square().mean(dim=1), lengths)
        metrics = {"latent_rms": rms(mean, lengths), "channel_std_min": channel_std(mean, lengths).amin()}
        return BottleneckOutput(values, None, {"kl": kl}, metrics)


SigmaVAEConfig = config_of(SigmaVAE)
