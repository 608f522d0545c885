"""Periodicity at the hop of a codec's latent frames, our own metric."""

import math

import torch
from partita_core import Metric, PartitaError, check_signals, config_of, register
from partita_core.ranges import Positive
from torch import Tensor

_HOPS = (1, 2, 3)
_NYQUIST_SHARE = 0.9  # the band must begin below this share of half the sample rate


@register("metric/frame_buzz", example={"hop": 320})
class FrameBuzz(Metric):
    """Autocorrelation of the upper band at one, two and three hops of the latent frames, minus the reference's.

    Our own metric. A decoder that makes the upper spectrum as a deterministic function of few latents repeats one
    texture every hop: a buzz at the frame rate, on which distances of spectra and PESQ hardly depend. The
    autocorrelation is that of the signal above `low` Hz, with the sum over channels, normalized to be 1 for a periodic
    signal, and averaged over the three lags. 0 is as periodic as the recording; above 0.05 is a fault.

    A gain is free above the floor; a polarity flip, a shift by a sample and swapped channels are free. Noise and a
    low-pass make the estimate less periodic, so the value is negative for recordings of sustained tones: it is not a
    measure of quality by itself. A clip of less than four hops, or at a sample rate at which the band begins above 0.9
    of half the rate, cannot be measured.

    Args:
        sample_rate: sample rate of the clips, in Hz.
        hop: samples per latent frame, at the sample rate of the clips. None takes each model's own hop in
            `partita.evaluation.evaluate`, and that of the first model for systems without one.
        low: lower end of the band in Hz.
        floor: RMS of the band below which it counts as silent.
    """

    label = "frame buzz"
    better = "lower"
    any_clip = False

    def __init__(
        self, sample_rate: int, *, hop: Positive | None = None, low: Positive = 3500.0, floor: Positive = 1e-5
    ) -> None:
        self.sample_rate, self.hop, self.low, self.floor = sample_rate, hop, low, floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the difference of the mean autocorrelations; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float64)
        if self.hop is None:
            raise PartitaError("frame_buzz has no hop; set it in samples, such as frame_buzz:hop=320")
        if self.low > _NYQUIST_SHARE * self.sample_rate / 2:
            raise PartitaError(f"there is no band above {self.low:g} Hz at a sample rate of {self.sample_rate} Hz")
        if reference.shape[-1] < 4 * self.hop:
            raise PartitaError(f"a clip of {reference.shape[-1]} samples is shorter than 4 hops of {self.hop:g}")
        return self.autocorrelation(estimate, self.hop) - self.autocorrelation(reference, self.hop)

    def autocorrelation(self, signal: Tensor, hop: float) -> float:
        """Mean normalized autocorrelation of the upper band of `(channels, samples)` at one, two and three hops."""
        samples = signal.shape[-1]
        size = 1 << (samples - 1).bit_length()
        frequencies = torch.fft.rfftfreq(size, dtype=torch.float64)  # in cycles per sample
        spectrum = torch.where(frequencies >= self.low / self.sample_rate, torch.fft.rfft(signal, n=size), 0)
        band = torch.fft.irfft(spectrum, n=size)
        total = 0.0
        for lag in (hops * hop for hops in _HOPS):
            # A shift of the phases allows lags that are not integers.
            turn = torch.polar(torch.ones_like(frequencies), 2 * math.pi * lag * frequencies)
            count = samples - math.ceil(lag)
            now, later = band[:, :count], torch.fft.irfft(spectrum * turn, n=size)[:, :count]
            energy = (now.square().sum() * later.square().sum()).sqrt().clamp_min(self.floor**2 * now.numel())
            total += float((now * later).sum() / energy) / len(_HOPS)
        return total


FrameBuzzConfig = config_of(FrameBuzz)
