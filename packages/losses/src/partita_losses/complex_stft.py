"""Discriminators of complex spectra at several resolutions (EnCodec)."""

from partita_core import Discriminator, DiscriminatorOutput, PartitaError, config_of, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn

from ._discriminators import ComplexSpectrum, classify, stft_conv

SLOPE = 0.2


@register("discriminator/complex_stft", example={"n_ffts": (256, 128), "hops": (67, 37), "channels": 4})
class ComplexSTFTDiscriminators(Discriminator):
    """One convolutional discriminator per resolution of the complex spectrum.

    From EnCodec (Defossez et al., 2022, arXiv 2210.13438, section 3.4): 2-D convolutions over the real and imaginary
    parts of all channels, dilated 1, 2 and 4 in time and strided by 2 in frequency, with weight normalization and
    leaky ReLU. Spectra are scaled such that white noise of unit variance has unit variance in every bin. The default
    hops are primes, coprime with those of the STFT loss too.

    Args:
        audio_channels: channels of the audio.
        n_ffts: lengths of the Fourier transforms and windows, one per discriminator.
        hops: samples from frame to frame, one per discriminator.
        channels: filters of each hidden layer.

    Raises:
        PartitaError: `n_ffts` and `hops` differ in length, or are empty.
    """

    def __init__(
        self,
        audio_channels: int = 1,
        *,
        n_ffts: tuple[Samples, ...] = (2048, 1024, 512, 256, 128),
        hops: tuple[Samples, ...] = (521, 263, 131, 67, 37),
        channels: Width = 64,
    ) -> None:
        super().__init__()
        if not len(n_ffts) == len(hops) > 0:
            raise PartitaError(f"n_ffts has {len(n_ffts)} values and hops {len(hops)}; give one hop per FFT")
        self.scales = nn.ModuleList(_Scale(audio_channels, n_fft, hop, channels) for n_fft, hop in zip(n_ffts, hops))

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify `(batch, channels, samples)`; logits are `(batch, 1, frames, bins / 8)`."""
        return [scale(signal) for scale in self.scales]


ComplexSTFTDiscriminatorsConfig = config_of(ComplexSTFTDiscriminators)


class _Scale(nn.Module):
    def __init__(self, audio_channels: int, n_fft: int, hop: int, channels: int) -> None:
        super().__init__()
        self.spectrum = ComplexSpectrum(n_fft, hop)
        self.hidden = nn.ModuleList([stft_conv(2 * audio_channels, channels, (3, 9))])
        for dilation in (1, 2, 4):
            self.hidden.append(stft_conv(channels, channels, (3, 9), stride=2, dilation=dilation))
        self.hidden.append(stft_conv(channels, channels, (3, 3)))
        self.last = stft_conv(channels, 1, (3, 3))

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        return classify(self.hidden, self.last, self.spectrum(audio), slope=SLOPE)
