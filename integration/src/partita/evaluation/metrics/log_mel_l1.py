"""Log-mel distance."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, register
from partita_core.ranges import Positive, Samples, Width
from torch import Tensor

from .base import Metric, pair
from .spectra import magnitudes, mel_bands


@register("metric/log_mel_l1")
@dataclass(frozen=True)
class LogMelL1Config(Config):
    """Mean absolute difference of log10 mel-band magnitudes.

    Attributes:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        num_mels: bands, from 0 Hz to half the sample rate.
        floor: bands are not taken as less than this; a full-scale sine has 1 where it is, so 1e-5 is -100 dB.
    """

    window: Samples = 2048
    hop: Samples = 512
    num_mels: Width = 80
    floor: Positive = 1e-5

    def build(self, *, sample_rate: int) -> "LogMelL1":
        """Builds the metric for audio of `sample_rate` Hz."""
        return LogMelL1(
            sample_rate=sample_rate, window=self.window, hop=self.hop, num_mels=self.num_mels, floor=self.floor
        )

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class LogMelL1(Metric):
    """Mean absolute difference of the logarithms, to base 10, of mel-band magnitudes.

    The mean is over channels, bands and frames. A band is the weighted mean of the magnitudes in its triangle on
    Slaney's mel scale, so 0.05 is a difference of 1 dB. Figures at different sample rates are not comparable.

    A gain of g costs |log10 g| wherever there is sound above the floor. Phase does not enter: a polarity flip is free,
    a shift by a sample nearly so. Swapped channels cost their difference.
    """

    name = "log_mel_l1"
    label = "log-mel L1"
    unit = ""
    better = "lower"

    def __init__(self, *, sample_rate: int, window: int, hop: int, num_mels: int, floor: float) -> None:
        self.window, self.hop, self.floor = window, hop, floor
        self.bands = mel_bands(sample_rate=sample_rate, window=window, num_mels=num_mels)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        return float(self.differences(estimate, reference).mean())

    def differences(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """What the figure is the mean of, `(channels, bands, frames)`; frame t is centered on sample `t * hop`."""
        e, r = (self._log_mel(signal) for signal in pair(estimate, reference, torch.float32))
        return (e - r).abs()

    def _log_mel(self, signal: Tensor) -> Tensor:
        return (self.bands @ magnitudes(signal, self.window, self.hop)).clamp_min(self.floor).log10()
