"""What a denoiser is told of the noise, and what it is wrapped in: embeddings, adaptive norms, preconditioning.

Music2Latent (arXiv 2408.06500) and CoDiCodec (arXiv 2509.09836); preconditioning as in Consistency Models
(arXiv 2303.01469, appendix C).
"""

from dataclasses import dataclass

import torch
from partita_core import PartitaError, upcast
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal_embedding(x: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of numbers times rates from 1 down to 1 / 10000.

    Args:
        x: numbers of any shape.
        dim: width, an even number.

    Returns:
        `(..., dim)` float64, to be cast once.
    """
    rates = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=x.device) / dim)
    angles = x.double().unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class NoiseEmbedding(nn.Module):
    """A vector for a noise level: the sinusoids of log(sigma) / 4 through three layers."""

    def __init__(self, dim: int) -> None:
        """Builds the embedding of width `dim`, an even number."""
        super().__init__()
        if dim % 2:
            raise PartitaError(f"the noise level is embedded in {dim} channels; the number must be even")
        self.dim = dim
        self.first, self.second, self.third = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Levels of any shape to their sinusoids and the embedding, each `(..., dim)`."""
        sinusoids = sinusoidal_embedding(upcast(sigma).log() / 4, self.dim).to(self.first.weight.dtype)
        return sinusoids, self.third(F.silu(self.second(F.silu(self.first(sinusoids)))))


class FrequencyGains(nn.Module):
    """Gains for each frequency at a noise level, for what enters a network and what leaves it; all 1 at first.

    Spectrograms of music are far louder at low frequencies than at high ones, noise is not.
    """

    def __init__(self, dim: int, bins: int) -> None:
        """Takes the width of the sinusoids and the number of frequencies."""
        super().__init__()
        self.hidden, self.gains = nn.Linear(dim, dim), nn.Linear(dim, 2 * bins)
        nn.init.zeros_(self.gains.weight)
        nn.init.zeros_(self.gains.bias)

    def forward(self, sinusoids: Tensor) -> tuple[Tensor, Tensor]:
        """Sinusoids `(batch, dim)` to two factors of maps, each `(batch, 1, bins, 1)`."""
        entering, leaving = (1 + self.gains(F.silu(self.hidden(sinusoids)))).chunk(2, dim=-1)
        return entering[:, None, :, None], leaving[:, None, :, None]


class AdaptiveScale(nn.Module):
    """A factor for each channel, `1 + W c` of an embedding c; W is zero at first. There is no shift."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        """Takes the widths of embedding and channels."""
        super().__init__()
        self.linear = nn.Linear(condition_dim, channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, condition: Tensor) -> Tensor:
        """`(..., condition_dim)` to `(..., channels)`."""
        return 1 + self.linear(condition)


class AdaptiveGroupNorm(nn.Module):
    """Group norm of at most 32 groups of at least 4 channels, with a scale but no shift.

    The scale depends on a condition where there is one.
    """

    def __init__(self, channels: int, *, condition_dim: int | None) -> None:
        """Builds the norm; `condition_dim` is None where there is no condition.

        Raises:
            PartitaError: the channels do not make equal groups.
        """
        super().__init__()
        groups = max(1, min(channels // 4, 32))
        if channels % groups:
            raise PartitaError(f"{channels} channels make no {groups} equal groups; take a multiple of {groups}")
        self.norm = nn.GroupNorm(groups, channels)
        self.norm.register_parameter("bias", None)  # torch 2.6 has no argument for it
        self.scale = None if condition_dim is None else AdaptiveScale(condition_dim, channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """`(batch, channels, rows, columns)` under a condition `(batch, condition_dim)` to as much."""
        y = self.norm(x)
        if self.scale is None:
            return y
        assert condition is not None, "this norm is conditioned; give the embedding"
        return y * self.scale(condition)[..., None, None]


class AdaptiveLayerNorm(nn.Module):
    """Layer norm over the last axis, with a scale but no shift; it depends on a condition where there is one."""

    def __init__(self, dim: int, *, condition_dim: int | None) -> None:
        """Builds the norm; `condition_dim` is None where there is no condition."""
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-4, bias=False)
        self.scale = None if condition_dim is None else AdaptiveScale(condition_dim, dim)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """`(batch, chunks * n, dim)` under conditions `(batch, chunks, condition_dim)` to as much."""
        y = self.norm(x)
        if self.scale is None:
            return y
        assert condition is not None, "this norm is conditioned; give the embeddings"
        return (y.unflatten(1, (condition.shape[1], -1)) * self.scale(condition).unsqueeze(2)).flatten(1, 2)


@dataclass(frozen=True)
class Preconditioning:
    """The scales around a network F that make a denoiser: `skip * x + output * F(input * x)`.

    At `sigma_min` the skip is 1 and the output 0, so that the denoiser returns its input whatever F is.

    Attributes:
        sigma_min: the level at which nothing is left to remove.
        sigma_data: standard deviation of clean data; a tensor where it is known of every point, which then is what
            the factors are of. Levels are to broadcast with it.
    """

    sigma_min: float
    sigma_data: float | Tensor

    def skip(self, sigma: Tensor) -> Tensor:
        """Factor of the noisy input in the result."""
        return self.sigma_data**2 / ((sigma - self.sigma_min).square() + self.sigma_data**2)

    def scaling(self, sigma: Tensor) -> Tensor:
        """Factor that makes the noisy input as large as clean data, 1 at `sigma_min`: a skip for consistency models.

        Where data is noise of this deviation, it is all that one has to do.
        """
        # The first factor is exactly 0 at `sigma_min`, and a number is exactly the root of its square.
        noise = (sigma - self.sigma_min) * (sigma + self.sigma_min)
        return self.sigma_data / (noise + self.sigma_data**2).sqrt()

    def output(self, sigma: Tensor) -> Tensor:
        """Factor of the network's output."""
        return self.sigma_data * (sigma - self.sigma_min) * (sigma.square() + self.sigma_data**2).rsqrt()

    def input(self, sigma: Tensor) -> Tensor:
        """Factor of the noisy input that the network sees, which makes its variance 1."""
        return (sigma.square() + self.sigma_data**2).rsqrt()
