"""Discriminators of bands of complex spectra at several resolutions (DAC)."""

from itertools import pairwise

import torch
from partita_core import Discriminator, DiscriminatorOutput, PartitaError, config_of, register
from partita_core.ranges import Proportion, Samples, Width
from torch import Tensor, nn

from ._discriminators import ComplexSpectrum, run_layers, stft_conv

SLOPE = 0.1


@register("discriminator/multi_band_stft", example={"n_ffts": (256, 128), "band_splits": (0.25,), "channels": 4})
class MultiBandSTFTDiscriminators(Discriminator):
    """One discriminator per resolution of the complex spectrum, each with separate convolutions for every band.

    From DAC (Kumar et al., 2023, arXiv 2306.06546, section 3.3): 2-D convolutions over the real and imaginary parts of
    all channels, strided by 2 in frequency, with weight normalization and leaky ReLU; the outputs of all bands are
    concatenated along frequency for the last convolution. Spectra are scaled such that white noise of unit variance
    has unit variance in every bin.

    Args:
        audio_channels: channels of the audio.
        n_ffts: lengths of the Fourier transforms and windows, one per discriminator; the hop is a quarter.
        band_splits: increasing boundaries between bands, as fractions of half the sample rate; n make n + 1 bands.
        channels: filters of each hidden layer.

    Raises:
        PartitaError: there are no resolutions, or a band contains no bin.
    """

    def __init__(
        self,
        audio_channels: int = 1,
        *,
        n_ffts: tuple[Samples, ...] = (2048, 1024, 512),
        band_splits: tuple[Proportion, ...] = (0.1, 0.25, 0.5, 0.75),
        channels: Width = 32,
    ) -> None:
        super().__init__()
        if not n_ffts:
            raise PartitaError("n_ffts is empty; give at least one FFT length")
        self.scales = nn.ModuleList(_Scale(audio_channels, n_fft, band_splits, channels) for n_fft in n_ffts)

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify `(batch, channels, samples)`; logits are `(batch, 1, frames, bins / 8)`."""
        return [scale(signal) for scale in self.scales]


MultiBandSTFTDiscriminatorsConfig = config_of(MultiBandSTFTDiscriminators)


class _Scale(nn.Module):
    def __init__(self, audio_channels: int, n_fft: int, splits: tuple[float, ...], channels: int) -> None:
        super().__init__()
        self.spectrum = ComplexSpectrum(n_fft, max(1, n_fft // 4))
        bins = self.spectrum.stft.bins
        ends = [0, *(int(split * bins) for split in splits), bins]
        self.widths = [high - low for low, high in pairwise(ends)]
        if min(self.widths) < 1:
            raise PartitaError(f"band_splits {splits} put {bins} bins into bands of {self.widths}; use fewer bands")
        self.bands = nn.ModuleList()
        for _ in self.widths:
            layers = [stft_conv(2 * audio_channels, channels, (3, 9))]
            layers += [stft_conv(channels, channels, (3, 9), stride=2) for _ in range(3)]
            self.bands.append(nn.ModuleList([*layers, stft_conv(channels, channels, (3, 3))]))
        self.last = stft_conv(channels, 1, (3, 3))

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        inputs = self.spectrum(audio).split(self.widths, dim=-1)
        features = [run_layers(layers, x, slope=SLOPE) for layers, x in zip(self.bands, inputs)]  # pyright: ignore
        logits = self.last(torch.cat([band[-1] for band in features], dim=-1))
        return DiscriminatorOutput(logits, tuple(feature for band in features for feature in band))
