"""Rectified flow: straight paths from noise to data, the velocity along them, and the error of a predicted one.

Pure functions, after "Flow Straight and Fast" (Liu et al., arXiv 2209.03003) and "Flow Matching for Generative
Modeling" (Lipman et al., arXiv 2210.02747). Time runs from 0, where all is noise, to 1, where all is data.
"""

from collections.abc import Callable

import torch
from partita_core import PartitaError, upcast
from torch import Tensor


def flow_interpolation(noise: Tensor, data: Tensor, time: Tensor) -> Tensor:
    """The points `(1 - t) * noise + t * data` of the paths.

    Args:
        noise: `(batch, ...)`, where the paths begin.
        data: as much, where they end.
        time: `(batch,)` in [0, 1].
    """
    time = time.reshape(-1, *(1,) * (data.dim() - 1)).to(data.dtype)
    return (1 - time) * noise + time * data


def flow_velocity(noise: Tensor, data: Tensor) -> Tensor:
    """What the velocity is to be, the same all along a path: `data - noise`."""
    return data - noise


def flow_matching_loss(prediction: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """The squared error of a predicted velocity, `|prediction - (data - noise)|**2`, element by element.

    Args:
        prediction: the velocity at a point of each path, any shape.
        noise: as much, where the paths begin.
        data: as much, where they end.

    Returns:
        As much, at least float32: the caller leaves out what is padding, and takes the mean.

    Raises:
        PartitaError: the shapes differ.
    """
    if not prediction.shape == noise.shape == data.shape:
        shapes = f"{tuple(prediction.shape)}, {tuple(noise.shape)} and {tuple(data.shape)}"
        raise PartitaError(f"prediction, noise and data are {shapes}; they must be of one shape")
    return (upcast(prediction) - flow_velocity(upcast(noise), upcast(data))).square()


def euler_flow(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, *, steps: int) -> Tensor:
    """Follows a velocity field from noise to data in equal steps, each along the velocity where it begins.

    On paths that are straight one step is exact.

    Args:
        velocity: of points `(batch, ...)` at times `(batch,)`.
        noise: the points at time 0.
        steps: evaluations of the velocity.

    Raises:
        PartitaError: there is no step.
    """
    if steps < 1:
        raise PartitaError(f"the flow is followed in {steps} steps; it takes at least 1")
    x = noise
    for step in range(steps):
        time = torch.full((len(noise),), step / steps, dtype=noise.dtype, device=noise.device)
        x = x + velocity(x, time) / steps
    return x


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): `unconditional + scale * (conditional - unconditional)`.

    It holds for velocities and for logits. A scale of 1 is the conditional prediction, 0 the unconditional one.
    """
    return unconditional + scale * (conditional - unconditional)
