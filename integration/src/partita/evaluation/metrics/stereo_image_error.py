"""Stereo image error."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, PartitaError, register
from partita_core.ranges import Positive, Samples, Width
from torch import Tensor

from .base import Metric, pair
from .spectra import mel_bands, spectrum


@register("metric/stereo_image_error")
@dataclass(frozen=True)
class StereoImageErrorConfig(Config):
    """How far sounds are from where they were between the channels, and from how wide.

    Attributes:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        num_mels: bands, from 0 Hz to half the sample rate.
        floor: bands with a smaller magnitude are silent; a full-scale sine has 1 where it is.
    """

    window: Samples = 2048
    hop: Samples = 512
    num_mels: Width = 24
    floor: Positive = 1e-5

    def build(self, *, sample_rate: int) -> "StereoImageError":
        """Builds the metric for audio of `sample_rate` Hz."""
        return StereoImageError(
            sample_rate=sample_rate, window=self.window, hop=self.hop, num_mels=self.num_mels, floor=self.floor
        )

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class StereoImageError(Metric):
    """Trace distance of the channels' covariances in bands and frames, 0 to 1, weighted by the reference's magnitude.

    What is heard of the stereo image is the channels' level difference, coherence and phase difference in each band
    (Breebaart et al. 2005, "Parametric coding of stereo audio"). These and the power are one matrix, the covariance
    `C = [[|L|^2, L R*], [L* R, |R|^2]]`, its entries summed over a band. The error is `|C_e / tr C_e - C_r / tr C_r|`,
    half the sum of the absolute eigenvalues: 0 for the same image, 1 for left alone in place of right, or in phase in
    place of out of phase; 1/2 for two unrelated channels in place of one sound. It is the same for channels as mid and
    side. Mono has no error.

    A silent band has no image, and counts as 1 where it sounds in the reference; if all of that is silent, the error
    is 1, or 0 if the estimate is silent too.

    A gain and a polarity flip of both channels are free, a shift by a sample nearly so. Swapped channels cost what the
    levels differ by, `||L|^2 - |R|^2| / (|L|^2 + |R|^2)` for what is panned.
    """

    name = "stereo_image_error"
    label = "stereo image"
    unit = ""
    better = "lower"

    def __init__(self, *, sample_rate: int, window: int, hop: int, num_mels: int, floor: float) -> None:
        self.window, self.hop, self.silence = window, hop, floor**2
        self.bands = mel_bands(sample_rate=sample_rate, window=window, num_mels=num_mels).double()

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        estimate, reference = pair(estimate, reference, torch.float64)
        if len(reference) == 1:
            return 0.0
        if len(reference) != 2:
            raise PartitaError(f"clips have {len(reference)} channels; a stereo image is one of two")
        (heard, e_left, e_cross), (power, r_left, r_cross) = (self._covariance(x) for x in (estimate, reference))
        sounds = heard > self.silence
        weight = torch.where(power > self.silence, power.sqrt(), 0)
        if not weight.any():
            return float(sounds.any())
        # The difference of two matrices of trace 1 has no trace: its eigenvalues are plus and minus the distance.
        distance = ((e_left - r_left).square() + (e_cross - r_cross).abs().square()).sqrt()
        return float((weight * torch.where(sounds, distance, 1)).sum() / weight.sum())

    def _covariance(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The trace, and by it the left channel's share and the cross term, each `(bands, frames)`."""
        left, right = spectrum(signal, self.window, self.hop)
        powers = [self.bands @ channel.abs().square() for channel in (left, right)]
        cross = self.bands.to(left.dtype) @ (left * right.conj())
        trace = powers[0] + powers[1]
        some = torch.where(trace > 0, trace, 1)
        return trace, powers[0] / some, cross / some
