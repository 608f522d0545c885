"""Noise added to latents at a given signal-to-noise ratio, and the RMS of latent frames."""

from dataclasses import replace

import torch
from partita_core import Latents, keyed_noise
from torch import Tensor


def frame_rms(latents: Latents) -> Tensor:
    """RMS of the values of each frame, over its channels and tokens, all items end to end, `(frames,)` float64."""
    values = _frames(latents).detach().cpu().double()
    items = [item[:, : int(count)] for item, count in zip(values, latents.frames)]
    return torch.cat([item.square().mean((0, 2)).sqrt() for item in items])


def with_noise(latents: Latents, snr_db: float, *, seed: int, key: str = "") -> Latents:
    """Add Gaussian noise to latents, relative to the RMS of each frame.

    The noise is the same for all ratios up to its scale.

    Args:
        latents: latents with values.
        snr_db: signal-to-noise ratio per frame in dB: 0 for noise as strong as the latents, infinity for none.
        seed: noise seed.
        key: name of the clip, so that clips get different noise.
    """
    frames = _frames(latents)
    rms = frames.double().square().mean((1, 3), keepdim=True).sqrt()
    noise = keyed_noise([seed] * len(latents), "with_noise", key, shape=frames.shape[1:]).to(rms)
    noisy = frames + (10 ** (-snr_db / 20) * rms * noise).to(frames.dtype)
    return replace(latents, values=noisy.flatten(2))


def _frames(latents: Latents) -> Tensor:
    """Values `(batch, dim, frames, K)`."""
    assert latents.values is not None
    return latents.values.unflatten(-1, (-1, latents.spec.tokens_per_frame))
