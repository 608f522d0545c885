"""Rectified flow: straight paths from noise to data, their velocity, and the loss of a predicted velocity.

Pure functions, after "Flow Straight and Fast" (Liu et al., arXiv 2209.03003) and "Flow Matching for Generative
Modeling" (Lipman et al., arXiv 2210.02747). Time runs from 0 (noise) to 1 (data).
"""

from collections.abc import Callable

import torch
from partita_core import PartitaError, upcast
from torch import Tensor


def flow_interpolation(noise: Tensor, data: Tensor, time: Tensor) -> Tensor:
    """Points on the paths: `(1 - t) * noise + t * data`.

    Args:
        noise: starts of the paths, `(batch, ...)`.
        data: ends of the paths, same shape as `noise`.
        time: `(batch,)` times in [0, 1].
    """
    time = time.reshape(-1, *(1,) * (data.dim() - 1)).to(data.dtype)
    return (1 - time) * noise + time * data


def flow_velocity(noise: Tensor, data: Tensor) -> Tensor:
    """Velocity of the paths, constant along each: `data - noise`."""
    return data - noise


def flow_matching_loss(prediction: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Squared error of a predicted velocity, `(prediction - (data - noise))**2`, per element.

    Args:
        prediction: velocity at a point of each path, any shape.
        noise: starts of the paths, same shape.
        data: ends of the paths, same shape.

    Returns:
        Squared errors of the same shape, at least float32, without reduction: the caller excludes padding.

    Raises:
        PartitaError: the shapes differ.
    """
    if not prediction.shape == noise.shape == data.shape:
        shapes = f"{tuple(prediction.shape)}, {tuple(noise.shape)} and {tuple(data.shape)}"
        raise PartitaError(f"prediction, noise and data are {shapes}; the shapes must be equal")
    return (upcast(prediction) - flow_velocity(upcast(noise), upcast(data))).square()


def euler_flow(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, *, steps: int) -> Tensor:
    """Integrate a velocity field from noise to data with Euler steps of equal size.

    One step is exact if the paths are straight.

    Args:
        velocity: function from points `(batch, ...)` and times `(batch,)` to velocities.
        noise: points at time 0.
        steps: number of steps, each with one evaluation of the velocity.

    Raises:
        PartitaError: `steps` is less than 1.
    """
    if steps < 1:
        raise PartitaError(f"steps is {steps}; it must be at least 1")
    x = noise
    for step in range(steps):
        time = torch.full((len(noise),), step / steps, dtype=noise.dtype, device=noise.device)
        x = x + velocity(x, time) / steps
    return x


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): `unconditional + scale * (conditional - unconditional)`.

    The predictions may be velocities or logits. A scale of 1 gives the conditional one, 0 the unconditional one.
    """
    return unconditional + scale * (conditional - unconditional)
