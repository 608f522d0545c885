"""Conditioning of denoisers on the noise level: embeddings, adaptive norms and gains, preconditioning.

Music2Latent (arXiv 2408.06500) and CoDiCodec (arXiv 2509.09836); preconditioning as in Consistency Models
(arXiv 2303.01469, appendix C).
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from partita_core import PartitaError, TypedModule, upcast
from torch import Tensor, nn
from torch.nn import functional as F

from .pointwise import group_norm


def sinusoidal_embedding(x: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of values times rates from 1 down to 1 / 10000.

    Args:
        x: values of any shape.
        dim: width of the embedding, an even number.

    Returns:
        `(..., dim)` float64, to be cast by the caller.
    """
    rates = 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=x.device) / dim)
    angles = x.double().unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class NoiseEmbedding(TypedModule):
    """Embedding of a noise level: sinusoids of log(sigma) / 4, then three linear layers.

    Args:
        dim: width of the embedding, an even number.

    Raises:
        PartitaError: `dim` is odd.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise PartitaError(f"the width of the noise embedding is {dim}; it must be even")
        self.dim = dim
        self.first, self.second, self.third = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Map noise levels of any shape to their sinusoids and their embedding, each `(..., dim)`."""
        sinusoids = sinusoidal_embedding(upcast(sigma).log() / 4, self.dim).to(self.first.weight.dtype)
        return sinusoids, self.third(F.silu(self.second(F.silu(self.first(sinusoids)))))


class FrequencyGains(TypedModule):
    """Gains per frequency that depend on the noise level, for the input and the output of a network; initially 1.

    Spectrograms of music are far louder at low frequencies than at high ones; white noise is not.

    Args:
        dim: width of the sinusoids of `NoiseEmbedding`.
        bins: number of frequencies.
    """

    def __init__(self, dim: int, bins: int) -> None:
        super().__init__()
        self.hidden, self.gains = nn.Linear(dim, dim), nn.Linear(dim, 2 * bins)
        nn.init.zeros_(self.gains.weight)
        nn.init.zeros_(self.gains.bias)

    def forward(self, sinusoids: Tensor) -> tuple[Tensor, Tensor]:
        """Map sinusoids `(batch, dim)` to gains for input and output, each `(batch, 1, bins, 1)`."""
        gains = 1 + self.gains(F.silu(self.hidden(sinusoids)))
        input_gains, output_gains = rearrange(gains, "b (two bins) -> two b 1 bins 1", two=2)
        return input_gains, output_gains


class AdaptiveScale(TypedModule):
    """Factor per channel `1 + W c`, linear in a condition c, with W initially zero and without a shift.

    Args:
        condition_dim: width of the condition.
        channels: number of channels.
    """

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_dim, channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, condition: Tensor) -> Tensor:
        """Map conditions `(..., condition_dim)` to factors `(..., channels)`."""
        return 1 + self.linear(condition)


class AdaptiveGroupNorm(TypedModule):
    """Group norm with a scale that may depend on a condition, and without a shift.

    There are at most 32 groups of at least 4 channels.

    Args:
        channels: number of channels.
        condition_dim: width of the condition; None without one.

    Raises:
        PartitaError: the channels cannot be divided into equal groups.
    """

    def __init__(self, channels: int, *, condition_dim: int | None) -> None:
        super().__init__()
        groups = max(1, min(channels // 4, 32))
        if channels % groups:
            raise PartitaError(f"{channels} channels do not form {groups} equal groups; use a multiple of {groups}")
        self.norm = nn.GroupNorm(groups, channels)
        self.norm.register_parameter("bias", None)  # older versions of torch have no argument for it
        self.scale = None if condition_dim is None else AdaptiveScale(condition_dim, channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Normalize a map `(batch, channels, rows, columns)`, given a condition `(batch, condition_dim)` or None."""
        assert self.scale is None or condition is not None, "the norm is conditioned; pass the embedding"
        scale = None if self.scale is None or condition is None else self.scale(condition)
        return group_norm(x, self.norm.weight, scale, groups=self.norm.num_groups, eps=self.norm.eps)


class AdaptiveLayerNorm(TypedModule):
    """Layer norm over the last axis with a scale that may depend on a condition, and without a shift.

    Args:
        dim: width of the tokens.
        condition_dim: width of the condition; None without one.
    """

    def __init__(self, dim: int, *, condition_dim: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-4, bias=False)
        self.scale = None if condition_dim is None else AdaptiveScale(condition_dim, dim)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Normalize tokens `(batch, chunks * n, dim)`, given conditions `(batch, chunks, condition_dim)` or None."""
        y = self.norm(x)
        if self.scale is None:
            return y
        assert condition is not None, "the norm is conditioned; pass the embeddings"
        return (y.unflatten(1, (condition.shape[1], -1)) * self.scale(condition).unsqueeze(2)).flatten(1, 2)


@dataclass(frozen=True)
class Preconditioning:
    """Scales around a network F that make it a denoiser: `skip * x + output * F(input * x)`.

    At `sigma_min` the skip is 1 and the output scale is 0, so that the denoiser returns its input whatever F is.

    Attributes:
        sigma_min: noise level at which nothing is removed.
        sigma_data: standard deviation of clean data; a tensor if it is known per point, with which the noise levels
            must broadcast.

    Example:
        >>> scales = Preconditioning(sigma_min=0.002, sigma_data=0.5)
        >>> sigma = torch.tensor(1.5)
        >>> denoised = scales.skip(sigma) * x + scales.output(sigma) * network(scales.input(sigma) * x)
    """

    sigma_min: float
    sigma_data: float | Tensor

    def skip(self, sigma: Tensor) -> Tensor:
        """Factor of the noisy input in the result."""
        return self.sigma_data**2 / ((sigma - self.sigma_min).square() + self.sigma_data**2)

    def scaling(self, sigma: Tensor) -> Tensor:
        """Factor that gives the noisy input the scale of clean data, 1 at `sigma_min`: a skip for consistency models.

        For data that is Gaussian noise of this deviation, it is the complete solution.
        """
        # The first factor is exactly 0 at `sigma_min`, and the root of a square is exactly the number.
        noise = (sigma - self.sigma_min) * (sigma + self.sigma_min)
        return self.sigma_data / (noise + self.sigma_data**2).sqrt()

    def output(self, sigma: Tensor) -> Tensor:
        """Factor of the output of the network."""
        return self.sigma_data * (sigma - self.sigma_min) * (sigma.square() + self.sigma_data**2).rsqrt()

    def input(self, sigma: Tensor) -> Tensor:
        """Factor of the noisy input of the network, which makes its variance 1."""
        return (sigma.square() + self.sigma_data**2).rsqrt()
