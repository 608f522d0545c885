"""Distances of magnitude spectra, which ignore phase: log-mel, STFT, LSD and mel-cepstral distances."""

import math

import torch
from partita_core import Metric, PartitaError, check_signals, config_of, register
from partita_core.ranges import Positive, Samples, Width
from partita_losses import MultiScaleMel
from torch import Tensor

from partita.evaluation.spectrograms import magnitudes, mel_bands


@register("metric/log_mel_l1")
class LogMelL1(Metric):
    """Mean absolute difference of log10 mel-band magnitudes.

    The mean is over channels, bands and frames. A band is the weighted mean of the magnitudes in its triangle on
    Slaney's mel scale, so 0.05 is a difference of 1 dB. Values at different sample rates are not comparable.

    A gain of g costs |log10 g| in bands above the floor. Phase is ignored: a polarity flip is free, a shift by a sample
    nearly so. Swapped channels cost their difference.

    Args:
        sample_rate: sample rate of the clips, in Hz.
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        num_mels: number of bands, from 0 Hz to half the sample rate.
        floor: smallest band magnitude; a full-scale sine has magnitude 1, so 1e-5 is -100 dB.
    """

    label = "log-mel L1"
    better = "lower"

    def __init__(
        self,
        sample_rate: int,
        *,
        window: Samples = 2048,
        hop: Samples = 512,
        num_mels: Width = 80,
        floor: Positive = 1e-5,
    ) -> None:
        self.window, self.hop, self.floor = window, hop, floor
        self.bands = mel_bands(sample_rate=sample_rate, window=window, num_mels=num_mels)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the distance; see `Metric`."""
        return float(self.differences(estimate, reference).mean())

    def differences(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """Absolute differences `(channels, bands, frames)`; frame t is centered on sample `t * hop`."""
        e, r = (self.log_mel(signal) for signal in check_signals(estimate, reference, torch.float32))
        return (e - r).abs()

    def log_mel(self, signal: Tensor) -> Tensor:
        """Log10 mel-band magnitudes `(channels, bands, frames)` of `(channels, samples)`."""
        return (self.bands @ magnitudes(signal, self.window, self.hop)).clamp_min(self.floor).log10()


@register("metric/multi_resolution_stft")
class STFTDistance(Metric):
    """Log-magnitude L1 plus spectral convergence, averaged over windows and channels.

    From Yamamoto et al. 2020 (arXiv 1910.11480), section 2.2, without training.

    For magnitudes E and R of a channel: `mean |ln E - ln R| + ||E - R|| / ||R||`, with Frobenius norms. A silent
    estimate of a non-silent reference has a convergence of 1. Where the reference is silent (no magnitude above the
    floor), convergence is undefined and set to 1, or to 0 if the estimate is silent too.

    A gain of g costs |ln g| + |g - 1| above the floor. Phase is ignored: a polarity flip is free, a shift by a sample
    nearly so. Swapped channels cost their difference.

    Args:
        windows: lengths of the Hann windows in samples, at every sample rate; each hop is a quarter of its window.
        floor: smallest magnitude; a full-scale sine has magnitude 1.
    """

    label = "MR-STFT"
    better = "lower"

    def __init__(self, *, windows: tuple[Samples, ...] = (2048, 512), floor: Positive = 1e-5) -> None:
        self.windows, self.floor = windows, floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the distance; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float32)
        terms = [self._distance(estimate, reference, window) for window in self.windows]
        return float(torch.stack(terms).mean())

    def _distance(self, estimate: Tensor, reference: Tensor, window: int) -> Tensor:
        e, r = (magnitudes(x, window, window // 4) for x in (estimate, reference))
        logarithmic = (e.clamp_min(self.floor).log() - r.clamp_min(self.floor).log()).abs().mean((-2, -1))
        convergence = (e - r).norm(dim=(-2, -1)) / r.norm(dim=(-2, -1))
        silent = (r <= self.floor).all(-1).all(-1)
        audible = (e > self.floor).any(-1).any(-1).to(e)
        return (logarithmic + torch.where(silent, audible, convergence)).mean()


@register("metric/multi_scale_mel")
class MultiScaleMelDistance(Metric):
    """Mean absolute difference of log10 mel-band magnitudes, summed over the scales of `partita_losses.MultiScaleMel`.

    The loss with its default settings, from DAC (Kumar et al. 2023, arXiv 2306.06546, section 3.5). The mean is over
    channels, bands and frames. Windows of 32 to 2048 samples weight attacks as much as tones. Values at different
    sample rates are not comparable.

    A gain of g costs |log10 g| per scale, in bands that contain a bin and are above the floor. Phase is ignored: a
    polarity flip is free; a shift by a sample costs little, more in the short windows. Swapped channels cost their
    difference.

    Args:
        sample_rate: sample rate of the clips, in Hz.
    """

    label = "multi-scale mel"
    better = "lower"

    def __init__(self, sample_rate: int) -> None:
        self.loss = MultiScaleMel(sample_rate)

    @torch.no_grad()
    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the distance; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float32)
        return float(self.loss(estimate[None], reference[None]))


@register("metric/lsd")
class LogSpectralDistance(Metric):
    """Log-spectral distance in dB (Gray and Markel 1976, with the L2 norm), averaged over frames and channels.

    For magnitudes E and R of a frame: the root of the mean over bins of `(20 log10 E/R)^2`. Every bin has equal weight,
    loud or faint, so high frequencies and the gaps between tones dominate.

    A gain of g costs |20 log10 g| dB above the floor. Phase is ignored: a polarity flip is free; a shift by a
    sample costs little, in the faintest bins. Swapped channels cost their difference.

    Args:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        floor: smallest magnitude; a full-scale sine has magnitude 1.
    """

    label = "LSD"
    unit = "dB"
    better = "lower"

    def __init__(self, *, window: Samples = 2048, hop: Samples = 512, floor: Positive = 1e-5) -> None:
        self.window, self.hop, self.floor = window, hop, floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the distance; see `Metric`."""
        e, r = (self._level(signal) for signal in check_signals(estimate, reference, torch.float32))
        return float((e - r).square().mean(1).sqrt().mean())

    def _level(self, signal: Tensor) -> Tensor:
        return 20 * magnitudes(signal, self.window, self.hop).clamp_min(self.floor).log10()


@register("metric/mcd")
class MelCepstralDistortion(Metric):
    """Mel-cepstral distortion in dB (Kubichek 1993), without time warping, averaged over frames and channels.

    `10 / ln 10 * sqrt(2 sum_d (c_d - c'_d)^2)` for d = 1 to `coefficients`, where the natural logarithm of the N
    mel-band magnitudes is `c_0 + sum_d c_d cos(pi d (k + 1/2) / N)` in band k. This is the RMS difference in dB of the
    two spectral envelopes on the mel scale without their levels: timbre, not pitch or loudness.

    A gain is free above the floor, and so is a polarity flip; a shift by a sample nearly is. Swapped channels cost the
    difference of their timbres.

    Args:
        sample_rate: sample rate of the clips, in Hz.
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        num_mels: number of bands, from 0 Hz to half the sample rate.
        coefficients: number of cepstral coefficients that are compared, from the second one on.
        floor: smallest band magnitude; a full-scale sine has magnitude 1.

    Raises:
        PartitaError: there are not more bands than coefficients.
    """

    label = "MCD"
    unit = "dB"
    better = "lower"

    def __init__(
        self,
        sample_rate: int,
        *,
        window: Samples = 2048,
        hop: Samples = 512,
        num_mels: Width = 80,
        coefficients: Width = 13,
        floor: Positive = 1e-5,
    ) -> None:
        if coefficients >= num_mels:
            raise PartitaError(f"coefficients is {coefficients} and num_mels {num_mels}; coefficients must be smaller")
        self.window, self.hop, self.floor = window, hop, floor
        self.bands = mel_bands(sample_rate=sample_rate, window=window, num_mels=num_mels)
        count = len(self.bands)
        order, band = torch.arange(1, min(coefficients + 1, count)), torch.arange(count) + 0.5
        self.cosines = 2 / count * torch.cos(math.pi / count * order[:, None] * band)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the distortion; see `Metric`."""
        e, r = (self._cepstrum(signal) for signal in check_signals(estimate, reference, torch.float32))
        return float((2 * (e - r).square().sum(1)).sqrt().mean() * 10 / math.log(10))

    def _cepstrum(self, signal: Tensor) -> Tensor:
        bands = self.bands @ magnitudes(signal, self.window, self.hop)
        return self.cosines @ bands.clamp_min(self.floor).log()


LogMelL1Config = config_of(LogMelL1)
STFTDistanceConfig = config_of(STFTDistance)
MultiScaleMelDistanceConfig = config_of(MultiScaleMelDistance)
LogSpectralDistanceConfig = config_of(LogSpectralDistance)
MelCepstralDistortionConfig = config_of(MelCepstralDistortion)
