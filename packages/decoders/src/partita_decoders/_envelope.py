"""Spectral envelope of the consistency decoder: predicted magnitudes that scale its noise (ours, not published)."""

import math

import torch
from partita_core import upcast
from torch import Tensor, nn

# The median magnitude of complex noise whose real and imaginary parts have a standard deviation of 1.
_MEDIAN = math.sqrt(2 * math.log(2))

# Companded magnitudes below this, about -100 dB of a full-scale sine, count as silence.
FLOOR = 3e-3


class SpectralEnvelope(nn.Conv2d):
    """Linear map from feature maps to the log-magnitude of each point of a spectrogram.

    It starts with the constant that belongs to noise of standard deviation `sigma_data`.

    Args:
        features: width of the feature maps.
        channels: number of audio channels.
        sample_rate: samples per second of the audio.
        sigma_data: standard deviation of companded spectrograms.
    """

    def __init__(self, features: int, channels: int, *, sample_rate: int, sigma_data: float) -> None:
        super().__init__(features, channels, 1)
        self.sample_rate = sample_rate
        assert self.bias is not None
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.bias, math.log(_MEDIAN * sigma_data))

    def loss(self, envelope: Tensor, clean: Tensor) -> Tensor:
        """Mean absolute error of the log-magnitudes, `(batch, chunks)`, at least float32.

        Frequencies are weighted by the density of the mel scale: half of it lies below a fifth of the frequencies of
        audio at 22.05 kHz.

        Args:
            envelope: predicted log-magnitudes `(batch, chunks, channels, bins, frames)`.
            clean: spectrograms `(batch, 2 * channels, bins, chunks * frames)`.
        """
        magnitude = upcast(clean).unflatten(1, (-1, 2)).square().sum(2).sqrt()
        target = (magnitude + FLOOR).log().unflatten(-1, (-1, envelope.shape[-1])).movedim(3, 1)
        distance = (upcast(envelope) - target).abs().mean((2, 4))
        return (distance * _mel_density(distance.shape[-1], self.sample_rate).to(distance)).mean(2)


def to_deviation(envelope: Tensor) -> Tensor:
    """Convert log-magnitudes `(batch, chunks, channels, bins, frames)` to standard deviations of both parts.

    The result `(batch, chunks, 2 * channels, bins, frames)` is detached: denoising losses would reduce magnitudes
    wherever the prediction is uncertain.
    """
    return (upcast(envelope).detach().exp() / _MEDIAN).repeat_interleave(2, 2)


def _mel_density(bins: int, sample_rate: int) -> Tensor:
    """Share of the mel scale in each of `bins` linear bands up to half the sample rate, `(bins,)`, with mean 1."""
    edges = torch.linspace(0, sample_rate / 2, bins + 1, dtype=torch.float64)
    return (1 + edges / 700).log().diff() / math.log1p(sample_rate / 1400) * bins
