"""What a metric is: one figure for one clip, the same on every machine."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from partita_core import Config, PartitaError
from torch import Tensor


class Metric(ABC):
    """A figure that says how far an estimate is from its reference.

    A new one is a file beside this one with its Config (`@register("metric/name")`, `build(sample_rate=)`) and its
    class. It computes on the CPU in float32 or float64, is finite for every finite input of one sample or more, and has
    its best value where the two signals are equal. One that measures chunks is 0 there, negative where the estimate
    is the smoother one. One that refuses clips, because they are too short to have what it measures, says so by
    `any_clip: ClassVar[bool] = False` in its Config, and is measured where it is asked for by name; its means are over
    the clips that it takes. One that needs the chunks of a model has a field `chunk` that is None by default.

    Its docstring has the definition and its source, and what a gain, a polarity flip, a shift by a sample and swapped
    channels do to the figure.

    Attributes:
        name: the key in files and on the command line, as it is registered.
        label: as it is printed.
        unit: of the figure, as it is printed.
        better: which way is up.
        config: the Config it was built from.
    """

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"]
    config: Config

    @abstractmethod
    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure of `estimate`, `(channels, samples)`, against `reference` of the same shape.

        Raises:
            PartitaError: the shapes differ, there is no sample, or the clip is too short to be measured so.
        """


def mean_over_channels(
    measure: Callable[[Tensor, Tensor], float],
    estimate: Tensor,
    reference: Tensor,
    *,
    refusal: type[Exception] | tuple[type[Exception], ...],
) -> float | None:
    """The mean of `measure(estimate, reference)` over the channels that are not silent in the reference.

    None where all are, or where `measure` raises what it refuses a channel by.
    """
    try:
        found = [measure(e, r) for e, r in zip(estimate, reference) if r.any()]
    except refusal:
        return None
    return sum(found) / len(found) if found else None


def pair(estimate: Tensor, reference: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both signals in `dtype` on the CPU, as every metric takes them first.

    Raises:
        PartitaError: they are not two signals `(channels, samples)` of one shape, with at least one sample.
    """
    if estimate.shape != reference.shape or reference.dim() != 2 or reference.numel() == 0:
        shapes = f"{tuple(estimate.shape)} and {tuple(reference.shape)}"
        raise PartitaError(f"estimate and reference are {shapes}; both must be (channels, samples), equal, not empty")
    return estimate.detach().to("cpu", dtype), reference.detach().to("cpu", dtype)
