"""Variational bottleneck with a small KL weight, as is common below latent generators."""

import torch
from partita_core import Bottleneck, BottleneckOutput, Posterior, config_of, mean_within, register, tokens_within
from partita_core.ranges import NonNegative, Positive
from torch import Tensor
from torch.nn import functional as F

from ._common import channel_std, receive, rms


@register("bottleneck/vae")
class VAE(Bottleneck):
    """Diagonal Gaussian per latent vector, with a KL divergence to the unit Gaussian (arXiv 1312.6114).

    The first half of the hidden channels is the mean, the second half the scale: `std = softplus(scale) + min_std`.
    The loss `kl` is the mean over batch and time of the sum over channels of `mean^2 + var - ln var - 1`. That is
    twice the KL divergence, as in the public recipes from which the weight 1e-4 is taken.

    Args:
        dim: width of the latents.
        kl_weight: weight of the KL term, which is a sum over channels.
        min_std: constant added to every standard deviation, so that the logarithm is finite.
    """

    def __init__(self, dim: int, *, kl_weight: NonNegative = 1e-4, min_std: Positive = 1e-4) -> None:
        super().__init__()
        self.dim, self.in_dim = dim, 2 * dim
        self.min_std = min_std
        self.loss_weights = {"kl": kl_weight}

    def forward(
        self, hidden: Tensor, *, stochastic: bool | None = None, lengths: Tensor | None = None
    ) -> BottleneckOutput:
        """Sample the posterior if stochastic, or return its mean.

        Args:
            hidden: hidden frames `(batch, 2 * dim, tokens)`.
            stochastic: True to sample; None means `self.training`.
            lengths: `(batch,)` tokens per item that are not padding; None for all.

        Returns:
            Values `(batch, dim, tokens)`; the loss `kl`; the metrics `kl_per_channel`, `posterior_std` (mean),
            `latent_rms`, and `channel_std_min`, the smallest standard deviation of a channel's mean.
        """
        mean, std = self.posterior(hidden)
        values = mean + std * torch.randn_like(std) if self.is_stochastic(stochastic) else mean
        kl = mean_within((mean.square() + std.square() - 2 * std.log() - 1).sum(dim=1), lengths)
        metrics = {
            "kl_per_channel": kl.detach() / self.dim,
            "posterior_std": tokens_within(std.detach(), lengths).mean(),
            "latent_rms": rms(values, lengths),
            "channel_std_min": channel_std(mean, lengths).amin(),
        }
        return BottleneckOutput(values, None, {"kl": kl}, metrics)

    def posterior(self, hidden: Tensor) -> Posterior:
        """Mean and standard deviation of the latents, each `(batch, dim, tokens)`, in any mode."""
        mean, scale = receive(self, hidden).chunk(2, dim=1)
        return Posterior(mean, F.softplus(scale) + self.min_std)


VAEConfig = config_of(VAE)
