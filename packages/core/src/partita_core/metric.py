"""The role `metric`: one number per clip that compares an estimate with its reference."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .errors import PartitaError
from .registry import Config


class Metric(ABC):
    """A distance or similarity of two signals, computed on the CPU in float32 or float64.

    Implement `__call__`, set the class attributes, and decorate the class with `@register("metric/name")`. The
    keyword-only parameters of the constructor are its settings; a positional `sample_rate`, if there is one, is the
    sample rate of the clips. The docstring gives the definition, its source, and the effect of a gain, a polarity flip,
    a shift by a sample and swapped channels. `partita_testing.check_metric` tests an implementation.

    The value is finite for every finite input of at least one sample, and best where the two signals are equal: 0 for
    metrics of which lower is better.

    Attributes:
        label: name in tables.
        unit: unit of the value in tables; empty for none.
        better: which direction is better, "lower" or "higher".
        any_clip: whether every clip can be measured. A metric that raises on some clips (for example short ones) sets
            it to False; it is then not part of `--metrics all`, and its mean is over the other clips.
        config: the settings.
    """

    label: ClassVar[str]
    unit: ClassVar[str] = ""
    better: ClassVar[Literal["lower", "higher"]]
    any_clip: ClassVar[bool] = True
    config: Config

    @property
    def name(self) -> str:
        """Registered name: the key in files and on the command line."""
        return self.config.tag.split("/")[1]

    @abstractmethod
    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Compare two signals.

        Args:
            estimate: `(channels, samples)`.
            reference: signal of the same shape.

        Raises:
            PartitaError: the shapes differ, there are no samples, or `any_clip` is False and the clip does not suit.
        """


def check_signals(estimate: Tensor, reference: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Check the inputs of a metric, and return them on the CPU in `dtype`.

    Raises:
        PartitaError: they are not two signals `(channels, samples)` of equal shape with at least one sample.
    """
    if estimate.shape != reference.shape or reference.dim() != 2 or reference.numel() == 0:
        shapes = f"{tuple(estimate.shape)} and {tuple(reference.shape)}"
        raise PartitaError(f"estimate and reference are {shapes}; both must be (channels, samples), equal, not empty")
    return estimate.detach().to("cpu", dtype), reference.detach().to("cpu", dtype)
