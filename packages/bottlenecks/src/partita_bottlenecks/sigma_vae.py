"""The sigma-VAE bottleneck: a learned mean, noise of a random amplitude that is not learned."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Bottleneck, BottleneckOutput, Config, mean_within, register
from partita_core.ranges import NonNegative
from torch import Tensor

from ._common import channel_std, receive, rms


@register("bottleneck/sigma_vae")
@dataclass(frozen=True)
class SigmaVAEConfig(Config):
    """Gaussian noise of a random size on latents whose size is penalised.

    Attributes:
        sigma: standard deviation of the amplitude of the noise.
        kl_weight: weight of the mean square of the means. It is a mean over channels, too: 1e-2 at 64 channels
            is near the VAE's 1e-4 on a sum.
    """

    sigma: NonNegative = 0.625
    kl_weight: NonNegative = 1e-2

    def build(self, *, dim: int) -> "SigmaVAE":
        """Builds it for latents of width `dim`."""
        return SigmaVAE(dim, sigma=self.sigma, kl_weight=self.kl_weight)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance."""
        return cls()


class SigmaVAE(Bottleneck):
    """`z = mu + s * e`, `e ~ N(0, 1)`, one `s ~ N(0, sigma^2)` for every example (LatentLM, VibeVoice).

    With the variance out of the encoder's hands its posterior cannot collapse, and what the KL leaves is the mean of
    `mu^2`, the loss `kl`. The scale of the latents stays free: `latent_rms` shows it, and `channel_std_min` whether a
    channel has died.
    """

    def __init__(self, dim: int, *, sigma: float, kl_weight: float) -> None:
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
