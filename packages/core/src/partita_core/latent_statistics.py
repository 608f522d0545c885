"""Statistics of latents over a data set, which `Latents.normalize` uses."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from .codec import Codec
from .errors import PartitaError
from .latent_transforms import unbound
from .latents import Latents
from .specs import LatentSpec

# Smallest variance of a channel: normalization divides by its root.
_MIN_VARIANCE = 1e-12


@torch.no_grad()
def measure_latents(codec: Codec, pieces: Iterable[Latents]) -> LatentSpec:
    """Measure mean and standard deviation of each channel over all frames of `pieces`.

    Args:
        codec: model that the latents come from.
        pieces: latents of a data set, not normalized.

    Returns:
        The codec's latent spec, with `mean` and `std`; assign it to `codec.latent_spec`.

    Raises:
        PartitaError: there are no frames, or an item has no values.
    """
    spec, count = codec.latent_spec, 0
    total = torch.zeros(spec.dim, dtype=torch.float64)
    squares = torch.zeros_like(total)
    for latents in pieces:
        for item in latents:
            if item.values is None:
                raise PartitaError("these latents hold codes only; measure latents that hold values")
            values = item.values[0].double().cpu()
            values = unbound(values) if spec.bounded else values
            count += values.shape[-1]
            total += values.sum(-1)
            squares += values.square().sum(-1)
    if not count:
        raise PartitaError("there are no latents to measure; pass at least one frame")
    mean = total / count
    std = (squares / count - mean**2).clamp_min(_MIN_VARIANCE).sqrt()
    return replace(spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
