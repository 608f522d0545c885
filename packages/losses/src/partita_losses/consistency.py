"""Consistency training: the distance of two denoisings, how far apart their times are, and where they are drawn.

Pure functions, after "Improved Techniques for Training Consistency Models" (Song and Dhariwal, arXiv 2310.14189) with
the continuous schedule of Music2Latent (Pasini et al., arXiv 2408.06500).
"""

import math

import torch
from partita_core import NoiseSchedule, PartitaError, upcast
from torch import Tensor

# Cells that the times from 0 to 1 are divided into; within one, all are equally likely.
_CELLS = 10_000


def pseudo_huber(prediction: Tensor, target: Tensor, *, offset: float) -> Tensor:
    """The pseudo-Huber distance of each item: `sqrt(|prediction - target|**2 + c**2) - c`.

    The norm is over all `D` elements of the item, and `c = offset * sqrt(D)` (arXiv 2310.14189, section 3.3): far
    below it the distance is quadratic, far above it is the norm.

    Args:
        prediction: `(batch, ...)`.
        target: as much.
        offset: the size of an element's difference at which one turns into the other.

    Returns:
        `(batch,)`, at least float32.

    Raises:
        PartitaError: the shapes differ.
    """
    if prediction.shape != target.shape:
        raise PartitaError(f"the prediction is {tuple(prediction.shape)}, the target {tuple(target.shape)}")
    difference = (upcast(prediction) - upcast(target)).flatten(1)
    c = offset * math.sqrt(difference.shape[1])
    squares = difference.square().sum(1)
    # The same as sqrt(squares + c^2) - c, without the difference of two large numbers.
    return squares / ((squares + c**2).sqrt() + c)


def step_size(progress: float, *, initial: float, exponent: float) -> float:
    """How far the teacher's time lies before the student's: `initial ** (1 + progress * (exponent - 1))`.

    Args:
        progress: of the training, from 0 to 1.
        initial: the size at the start, a fraction of all times.
        exponent: the size at the end is `initial ** exponent`.
    """
    return initial ** (1 + progress * (exponent - 1))


def draw_times(uniform: Tensor, schedule: NoiseSchedule, *, mean: float, std: float, uniform_share: float) -> Tensor:
    """Times whose density is that of a normal distribution at the logarithm of their noise level.

    This is the density over times, not the log-normal one over levels: with mean -1.1 and standard deviation 2 (and
    levels from 0.002 to 80), half of the draws are below 0.58, and one in a hundred is above 40. One-step decoding
    starts at the largest level, so a share of the draws may be spread evenly over all times instead.

    Args:
        uniform: even draws from [0, 1), any shape; a larger one gives a later time.
        schedule: the noise levels.
        mean: of the logarithm of the level.
        std: of the logarithm of the level.
        uniform_share: the fraction of draws that is even over times.

    Returns:
        Times in [0, 1] of the shape of `uniform`, float64.
    """
    centers = (torch.arange(_CELLS, dtype=torch.float64, device=uniform.device) + 0.5) / _CELLS
    density = (-0.5 * ((schedule.sigma(centers).log() - mean) / std).square()).exp()
    chances = (1 - uniform_share) * density / density.sum() + uniform_share / _CELLS
    ends = chances.cumsum(0)
    # The inverse of the distribution function, which is straight within a cell.
    place = uniform.double() * ends[-1]
    cell = torch.searchsorted(ends, place, right=True).clamp_max(_CELLS - 1)
    within = (place - (ends[cell] - chances[cell])) / chances[cell]
    return ((cell + within) / _CELLS).clamp(0, 1)
