"""Consistency training: the distance of two denoised signals, and the choice of their times.

Pure functions, after "Improved Techniques for Training Consistency Models" (Song and Dhariwal, arXiv 2310.14189) with
the continuous schedule of Music2Latent (Pasini et al., arXiv 2408.06500).
"""

import math

import torch
from partita_core import NoiseSchedule, PartitaError, upcast
from torch import Tensor

# The density of times is constant within each of this many cells of [0, 1].
CELLS = 10_000


def pseudo_huber(prediction: Tensor, target: Tensor, *, offset: float) -> Tensor:
    """Pseudo-Huber distance of each item: `sqrt(|prediction - target|**2 + c**2) - c`.

    The norm is over all `D` elements of the item, and `c = offset * sqrt(D)` (arXiv 2310.14189, section 3.3). Far
    below `c` the distance is quadratic; far above, it is the norm.

    Args:
        prediction: `(batch, ...)`.
        target: same shape as `prediction`.
        offset: RMS of the difference at the transition from quadratic to linear.

    Returns:
        `(batch,)`, at least float32.

    Raises:
        PartitaError: the shapes differ.
    """
    if prediction.shape != target.shape:
        raise PartitaError(
            f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}; the shapes must be equal"
        )
    difference = (upcast(prediction) - upcast(target)).flatten(1)
    c = offset * math.sqrt(difference.shape[1])
    squares = difference.square().sum(1)
    # Equal to sqrt(squares + c^2) - c, without the cancellation.
    return squares / ((squares + c**2).sqrt() + c)


def step_size(progress: float, *, initial: float, exponent: float) -> float:
    """Step from the teacher's time to the student's: `initial ** (1 + progress * (exponent - 1))`.

    Args:
        progress: progress of the training, from 0 to 1.
        initial: step at the start, a fraction of the range of times.
        exponent: the step at the end is `initial ** exponent`.
    """
    return initial ** (1 + progress * (exponent - 1))


def draw_times(uniform: Tensor, schedule: NoiseSchedule, *, mean: float, std: float, uniform_share: float) -> Tensor:
    """Draw times with a density that is normal in the logarithm of the noise level.

    The density is over times; it is not the log-normal density over levels. With mean -1.1 and standard deviation 2
    (and levels from 0.002 to 80), half of the levels are below 0.58, and one percent are above 40. One-step decoding
    starts at the largest level, so a share of the draws may be uniform over all times instead.

    Args:
        uniform: uniform draws from [0, 1), any shape; larger values give later times.
        schedule: noise levels.
        mean: mean of the logarithm of the level.
        std: standard deviation of the logarithm of the level.
        uniform_share: fraction of the draws that are uniform over times.

    Returns:
        Times in [0, 1] of the shape of `uniform`, float64.
    """
    centers = (torch.arange(CELLS, dtype=torch.float64, device=uniform.device) + 0.5) / CELLS
    density = (-0.5 * ((schedule.sigma(centers).log() - mean) / std).square()).exp()
    probabilities = (1 - uniform_share) * density / density.sum() + uniform_share / CELLS
    cumulative = probabilities.cumsum(0)
    # Invert the distribution function, which is linear within a cell.
    quantile = uniform.double() * cumulative[-1]
    cell = torch.searchsorted(cumulative, quantile, right=True).clamp_max(CELLS - 1)
    within = (quantile - (cumulative[cell] - probabilities[cell])) / probabilities[cell]
    return ((cell + within) / CELLS).clamp(0, 1)
