"""Scale, effective rank and kurtosis of latents over clips."""

from dataclasses import dataclass

import torch
from partita_core import Latents, PartitaError
from torch import Tensor

# A channel with less than this share of the RMS of all standard deviations is dead.
_DEAD = 0.01


@dataclass(frozen=True)
class ChannelBalance:
    """Distribution of the variance over the channels of latents.

    Attributes:
        rms: root mean square of all values.
        variance_min: smallest variance of a channel over the mean variance.
        variance_max: largest variance of a channel over the mean variance.
        effective_rank: exponential of the entropy of the covariance's spectrum (Roy and Vetterli, 2007): the number of
            directions of equal variance with the same entropy.
        dead: number of channels with a standard deviation under 1 % of the RMS of all.
        kurtosis: excess kurtosis, the mean over channels that are not dead; 0 for a Gaussian.
    """

    rms: float
    variance_min: float
    variance_max: float
    effective_rank: float
    dead: int
    kurtosis: float


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of latents over some clips, in summary and per channel.

    Attributes:
        vectors: number of latent vectors.
        balance: distribution of the variance over channels.
        spectrum: eigenvalues of the covariance over their sum, largest first.
        std: standard deviation per channel.
        kurtosis: excess kurtosis per channel; None for dead channels.
    """

    vectors: int
    balance: ChannelBalance
    spectrum: tuple[float, ...]
    std: tuple[float, ...]
    kurtosis: tuple[float | None, ...]


def latent_vectors(latents: Latents) -> Tensor:
    """Latent vectors of all items without padding, `(vectors, dim)` float64 on the CPU.

    Raises:
        PartitaError: the latents hold codes only.
    """
    if latents.values is None:
        raise PartitaError("the latents hold codes only; decode them to values first")
    counts = (latents.frames * latents.spec.tokens_per_frame).tolist()
    values = latents.values.detach().cpu().double()
    return torch.cat([item[:, :count].T for item, count in zip(values, counts)])


def latent_statistics(vectors: Tensor) -> LatentStatistics:
    """Compute the statistics of latent vectors `(vectors, dim)`.

    Raises:
        PartitaError: there are no two different vectors.
    """
    vectors = vectors.double()
    centered = vectors - vectors.mean(0)
    variance = centered.square().mean(0)
    if len(vectors) < 2 or not variance.any():
        raise PartitaError(f"{len(vectors)} latent vectors have no variance; at least 2 must differ")
    eigenvalues = torch.linalg.eigvalsh(centered.T @ centered / len(vectors)).clamp_min(0)
    spectrum = eigenvalues.flip(0) / eigenvalues.sum()
    alive = variance > _DEAD**2 * variance.mean()
    kurtosis = centered.pow(4).mean(0) / variance.square() - 3  # NaN for constant channels, which are not alive
    balance = ChannelBalance(
        rms=float(vectors.square().mean().sqrt()),
        variance_min=float(variance.min() / variance.mean()),
        variance_max=float(variance.max() / variance.mean()),
        effective_rank=float(torch.special.entr(spectrum).sum().exp()),
        dead=int((~alive).sum()),
        kurtosis=float(kurtosis[alive].mean()),
    )
    return LatentStatistics(
        vectors=len(vectors),
        balance=balance,
        spectrum=tuple(spectrum.tolist()),
        std=tuple(variance.sqrt().tolist()),
        kurtosis=tuple(value if lives else None for value, lives in zip(kurtosis.tolist(), alive.tolist())),
    )
