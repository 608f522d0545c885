"""ViSQOL: similarity of spectrograms, mapped to what listeners said."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from partita_core import Config, PartitaError, register
from torch import Tensor

from partita.data.audio.resampling import resample

from .base import Metric, mean_over_channels, pair

_RATE = 48_000  # of its mode for audio in general


@register("metric/visqol")
@dataclass(frozen=True)
class ViSQOLConfig(Config):
    """ViSQOL for audio in general, by the package visqol-python; it takes longer than the clip."""

    any_clip: ClassVar[bool] = False

    def build(self, *, sample_rate: int) -> "ViSQOL":
        """Builds the metric for audio of `sample_rate` Hz, which is resampled to 48 kHz.

        Raises:
            PartitaError: visqol-python is not installed.
        """
        try:
            from visqol import VisqolApi  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise PartitaError(
                "visqol is measured by the package visqol-python: `pip install 'partita[perceptual]'`"
            ) from None
        measure = VisqolApi()
        measure.create(mode="audio")
        return ViSQOL(measure=measure.measure_from_arrays, sample_rate=sample_rate)

    @classmethod
    def example(cls) -> Self:
        """The only one there is."""
        return cls()


class ViSQOL(Metric):
    """Perceived quality of music and other audio as MOS-LQO, 1 to 4.73, the mean over channels (Chinen et al. 2020).

    Gammatone spectrograms of patches of 0.6 s, each aligned in time, are compared by their structure (NSIM), and the
    similarity of 32 bands mapped to the scores of listeners by a support vector machine. Channels that are silent in
    the reference are left out; a silent estimate gets 1. A clip without a patch, under about a second, is refused.

    Levels are matched and delays found first: a gain, a polarity flip and a shift by a sample are free. Noise and a
    low-pass cost much. Swapped channels cost their difference.
    """

    name = "visqol"
    label = "ViSQOL"
    unit = ""
    better = "higher"

    def __init__(self, *, measure: Callable[..., Any], sample_rate: int) -> None:
        self.measure, self.sample_rate = measure, sample_rate

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        heard = (resample(x, self.sample_rate, _RATE) for x in pair(estimate, reference, torch.float64))
        found = mean_over_channels(self._channel, *heard, refusal=ValueError)
        if found is None:
            seconds = reference.shape[-1] / self.sample_rate
            raise PartitaError(f"visqol finds no patch of 0.6 s with sound in a clip of {seconds:.2f} s")
        return found

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        if not estimate.any():
            return 1.0
        with np.errstate(all="ignore"):  # of patches without sound
            return float(self.measure(reference.numpy(), estimate.numpy(), _RATE).moslqo)
