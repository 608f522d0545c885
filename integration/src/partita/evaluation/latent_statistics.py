"""The scale and balance of latents, and latents with noise of a stated size."""

from dataclasses import dataclass, replace

import torch
from partita_core import Latents, PartitaError, keyed_noise
from torch import Tensor

# A channel below this share of the RMS of the standard deviations does nothing.
_DEAD = 0.01


@dataclass(frozen=True)
class ChannelBalance:
    """How the channels of latents share what there is.

    Attributes:
        rms: root mean square of everything.
        variance_min: the smallest variance of a channel, over their mean.
        variance_max: the largest, likewise.
        effective_rank: exponential of the entropy of the covariance's spectrum (Roy and Vetterli, 2007): as many
            directions of equal variance would be as spread.
        dead: channels with a standard deviation under 1 % of the RMS of all.
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
    """What latents look like over some clips: in one line, and channel by channel.

    Attributes:
        vectors: latent vectors that were counted.
        balance: how their channels share what there is.
        spectrum: eigenvalues of their covariance over the sum of all, largest first.
        std: standard deviation of each channel.
        kurtosis: excess kurtosis of each channel; None of one that is dead.
    """

    vectors: int
    balance: ChannelBalance
    spectrum: tuple[float, ...]
    std: tuple[float, ...]
    kurtosis: tuple[float | None, ...]


def frame_rms(latents: Latents) -> Tensor:
    """RMS of the values of each frame, over its channels and tokens, all items end to end, `(frames,)` float64.

    Raises:
        PartitaError: there are no values.
    """
    return torch.cat([frame.square().mean((0, 2)).sqrt() for frame in _frames(latents)])


def latent_vectors(latents: Latents) -> Tensor:
    """The latent vectors of all items, without what pads them, `(vectors, dim)` float64.

    Raises:
        PartitaError: there are no values.
    """
    return torch.cat([frame.flatten(1).T for frame in _frames(latents)])


def with_noise(latents: Latents, snr_db: float, *, seed: int, key: str = "") -> Latents:
    """The latents with Gaussian noise, so many dB below each frame's own RMS; with infinity they stay as they are.

    The noise is the same for all ratios, but for its size, and depends on the seed and the key alone.

    Args:
        latents: with values.
        snr_db: ratio of signal to noise in every frame; 0 is noise as strong as the latents.
        seed: of the noise.
        key: tells clips apart.

    Raises:
        PartitaError: there are no values.
    """
    values = _values(latents)
    frames = values.unflatten(-1, (-1, latents.spec.tokens_per_frame))
    rms = frames.double().square().mean((1, 3), keepdim=True).sqrt()
    noise = keyed_noise([seed] * len(latents), "with_noise", key, shape=frames.shape[1:]).to(rms)
    noisy = frames + (10 ** (-snr_db / 20) * rms * noise).to(values.dtype)
    return replace(latents, values=noisy.flatten(2))


def channel_balance(vectors: Tensor) -> ChannelBalance:
    """The balance of channels over latent vectors `(vectors, dim)`, at least two that differ.

    Raises:
        PartitaError: there are fewer.
    """
    return latent_statistics(vectors).balance


def latent_statistics(vectors: Tensor) -> LatentStatistics:
    """The statistics of latent vectors `(vectors, dim)`, at least two that differ.

    Raises:
        PartitaError: there are fewer.
    """
    vectors = vectors.double()
    centered = vectors - vectors.mean(0)
    variance = centered.square().mean(0)
    if len(vectors) < 2 or not variance.any():
        raise PartitaError(f"{len(vectors)} latent vectors have no variance; give two that differ")
    eigenvalues = torch.linalg.eigvalsh(centered.T @ centered / len(vectors)).clamp_min(0)
    spectrum = eigenvalues.flip(0) / eigenvalues.sum()
    alive = variance > _DEAD**2 * variance.mean()
    kurtosis = centered.pow(4).mean(0) / variance.square() - 3  # NaN where nothing varies, which is not alive
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


def _values(latents: Latents) -> Tensor:
    if latents.values is None:
        raise PartitaError("these latents hold codes only, which have no scale")
    return latents.values


def _frames(latents: Latents) -> list[Tensor]:
    """The values of each item, `(dim, frames, K)` float64 on the CPU."""
    values = _values(latents).detach().cpu().double().unflatten(-1, (-1, latents.spec.tokens_per_frame))
    return [item[:, : int(count)] for item, count in zip(values, latents.frames)]
