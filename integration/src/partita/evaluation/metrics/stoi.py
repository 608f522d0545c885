"""Short-time objective intelligibility."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from partita_core import Config, PartitaError, register
from torch import Tensor

from .base import Metric, mean_over_channels, pair


@register("metric/stoi")
@dataclass(frozen=True)
class STOIConfig(Config):
    """Short-time objective intelligibility of speech, by the package pystoi."""

    any_clip: ClassVar[bool] = False

    def build(self, *, sample_rate: int) -> "STOI":
        """Builds the metric for audio of `sample_rate` Hz, which is resampled to 10 kHz.

        Raises:
            PartitaError: pystoi is not installed.
        """
        try:
            from pystoi import stoi
        except ImportError:
            raise PartitaError("stoi is measured by pystoi: `pip install 'partita[perceptual]'`") from None
        return STOI(measure=stoi, sample_rate=sample_rate)

    @classmethod
    def example(cls) -> Self:
        """The only one there is."""
        return cls()


class STOI(Metric):
    """Short-time objective intelligibility, at most 1, the mean over channels (Taal et al. 2011).

    The correlation of the envelopes of 15 third-octave bands up to 4.3 kHz over 0.4 s. It is made for speech. Channels
    that are silent in the reference are left out; a clip without 0.4 s within 40 dB of its loudest part is refused.

    A gain and a polarity flip are free, a shift by a sample nearly so. Noise costs much; a low-pass what it takes of
    these bands. Swapped channels cost what their envelopes differ by.
    """

    name = "stoi"
    label = "STOI"
    unit = ""
    better = "higher"

    def __init__(self, *, measure: Callable[..., Any], sample_rate: int) -> None:
        self.measure, self.sample_rate = measure, sample_rate

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        both = pair(estimate, reference, torch.float64)
        with warnings.catch_warnings(action="error", category=RuntimeWarning):  # so it says that a clip is too short
            found = mean_over_channels(self._channel, *both, refusal=(RuntimeWarning, ValueError))
        if found is None:
            seconds = reference.shape[-1] / self.sample_rate
            raise PartitaError(f"stoi needs 0.4 s of sound, and a clip of {seconds:.2f} s has less")
        return found

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        return float(self.measure(reference.numpy(), estimate.numpy(), self.sample_rate))
