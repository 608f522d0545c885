"""Mel-cepstral distortion."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, PartitaError, register
from partita_core.ranges import Positive, Samples, Width
from torch import Tensor

from .base import Metric, pair
from .spectra import magnitudes, mel_bands


@register("metric/mcd")
@dataclass(frozen=True)
class MelCepstralDistortionConfig(Config):
    """Distance of the first mel-cepstral coefficients but that of the level.

    Attributes:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        num_mels: bands, from 0 Hz to half the sample rate.
        coefficients: how many of the cepstrum are compared, from the second on.
        floor: bands are not taken as less than this; a full-scale sine has 1 where it is.
    """

    window: Samples = 2048
    hop: Samples = 512
    num_mels: Width = 80
    coefficients: Width = 13
    floor: Positive = 1e-5

    def __post_init__(self) -> None:
        """Refuse more coefficients than bands have."""
        super().__post_init__()
        if not self.coefficients < self.num_mels:
            raise PartitaError(f"{self.coefficients} coefficients of {self.num_mels} bands; take 1 to one fewer")

    def build(self, *, sample_rate: int) -> "MelCepstralDistortion":
        """Builds the metric for audio of `sample_rate` Hz."""
        return MelCepstralDistortion(
            sample_rate=sample_rate,
            window=self.window,
            hop=self.hop,
            num_mels=self.num_mels,
            coefficients=self.coefficients,
            floor=self.floor,
        )

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class MelCepstralDistortion(Metric):
    """Mel-cepstral distortion in dB (Kubichek 1993), frame by frame without time warping; the mean over channels too.

    `10 / ln 10 * sqrt(2 sum_d (c_d - c'_d)^2)` for d = 1 to `coefficients`, where the natural logarithm of the N
    mel-band magnitudes is `c_0 + sum_d c_d cos(pi d (k + 1/2) / N)` in band k. That is the RMS difference in dB of the
    two spectra over the mel scale, smoothed to their envelope and freed of their level: timbre, not pitch or loudness.

    A gain is free above the floor, and so is a polarity flip; a shift by a sample nearly is. Swapped channels cost the
    difference of their timbres.
    """

    name = "mcd"
    label = "MCD"
    unit = "dB"
    better = "lower"

    def __init__(
        self, *, sample_rate: int, window: int, hop: int, num_mels: int, coefficients: int, floor: float
    ) -> None:
        self.window, self.hop, self.floor = window, hop, floor
        self.bands = mel_bands(sample_rate=sample_rate, window=window, num_mels=num_mels)
        count = len(self.bands)
        order, place = torch.arange(1, min(coefficients + 1, count)), torch.arange(count) + 0.5
        self.cosines = 2 / count * torch.cos(math.pi / count * order[:, None] * place)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        e, r = (self._cepstrum(signal) for signal in pair(estimate, reference, torch.float32))
        return float((2 * (e - r).square().sum(1)).sqrt().mean() * 10 / math.log(10))

    def _cepstrum(self, signal: Tensor) -> Tensor:
        bands = self.bands @ magnitudes(signal, self.window, self.hop)
        return self.cosines @ bands.clamp_min(self.floor).log()
