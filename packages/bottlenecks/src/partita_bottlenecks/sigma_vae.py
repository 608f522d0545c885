"""The sigma-VAE bottleneck: a learned mean, noise of a random amplitude that is not learned."""

import torch
from partita_core import Bottleneck, BottleneckOutput, config_of, mean_within, register
from partita_core.ranges import NonNegative
from torch import Tensor

from ._common import channel_std, receive, rms


@register("bottleneck/sigma_vae")
class SigmaVAE(Bottleneck):
    """`z = mu + s * e`, `e ~ N(0, 1)`, one `s ~ N(0, sigma^2)` for every example (LatentLM, VibeVoice).

    With the variance out of the encoder's hands its posterior cannot collapse, and what the KL leaves is the mean of
    `mu^2`, the loss `kl`. The scale of the latents stays free: `latent_rms` shows it, and `channel_std_min` whether a
    channel has died.

    Args:
        dim: width of the latents.
        sigma: standard deviation of the amplitude of the noise.
        kl_weight: weight of the mean square of the means. It is a mean over channels, too: 1e-2 at 64 channels
            is near the VAE's 1e-4 on a sum.
    """

    def __init__(self, dim: int, *, sigma: NonNegative = 0.625, kl_weight: NonNegative = 1e-2) -> None:
        super().__init__()
        self.dim = self.in_dim = dim
        self.sigma = sigma
        self.loss_weights = {"kl": kl_weight}

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Perturbs `(batch, dim, tokens)` while stochastic, and passes the means as they are otherwise."""
        mean = receive(self, hidden)
        values = mean
        if self.is_stochastic(stochastic):
            amplitude = self.sigma * torch.randn(mean.shape[0], 1, 1, dtype=mean.dtype, device=mean.device)
            values = mean + amplitude * torch.randn_like(mean)
        kl = mean_within(mean.square().mean(dim=1), lengths)
        metrics = {"latent_rms": rms(mean, lengths), "channel_std_min": channel_std(mean, lengths).amin()}
        return BottleneckOutput(values, None, {"kl": kl}, metrics)


SigmaVAEConfig = config_of(SigmaVAE)
