"""Mean absolute difference of samples."""

import torch
from partita_core import Metric, check_signals, config_of, register
from partita_core.ranges import Positive
from torch import Tensor


@register("metric/newcomer", example={"scale": 2.0})
class Newcomer(Metric):
    """Mean absolute difference of samples, times a scale.

    A gain of g costs |1 - g| times the mean magnitude, and a polarity flip twice the mean magnitude. A shift by a
    sample costs the mean slope. Swapped channels cost their difference.

    Args:
        scale: factor of the value.
    """

    label = "sample difference"
    better = "lower"

    def __init__(self, *, scale: Positive = 1.0) -> None:
        self.scale = scale

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the difference; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float64)
        return self.scale * float((estimate - reference).abs().mean())


NewcomerConfig = config_of(Newcomer)
