"""Discriminators on complex spectra at several resolutions."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from partita_blocks import STFT
from partita_core import AudioSpec, Config, PartitaError, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

LEAK = 0.2


class DiscriminatorOutput(NamedTuple):
    """What one discriminator says of audio.

    Attributes:
        logits: any shape that begins with the batch; high where it takes the audio for real.
        features: the outputs of its hidden layers, for feature matching.
    """

    logits: Tensor
    features: tuple[Tensor, ...]


@register("discriminator/complex_stft")
@dataclass(frozen=True)
class ComplexSTFTDiscriminatorsConfig(Config):
    """Discriminators of complex spectra, one a resolution (EnCodec).

    The hops are primes, coprime with those of the STFT loss too.

    Attributes:
        n_ffts: lengths of the Fourier transforms and windows, one a discriminator.
        hops: samples from frame to frame.
        channels: filters of each hidden layer.
    """

    n_ffts: tuple[Samples, ...] = (2048, 1024, 512, 256, 128)
    hops: tuple[Samples, ...] = (521, 263, 131, 67, 37)
    channels: Width = 64

    def build(self, *, audio_spec: AudioSpec) -> "ComplexSTFTDiscriminators":
        """Builds them for audio of `audio_spec`."""
        return ComplexSTFTDiscriminators(
            audio_channels=audio_spec.channels, n_ffts=self.n_ffts, hops=self.hops, channels=self.channels
        )

    @classmethod
    def example(cls) -> Self:
        """Two discriminators of four filters."""
        return cls(n_ffts=(256, 128), hops=(67, 37), channels=4)


class ComplexSTFTDiscriminators(nn.Module):
    """One convolutional discriminator for each resolution of the complex spectrum.

    From EnCodec (Defossez et al., 2022, arXiv 2210.13438, section 3.4): 2-D convolutions over the real and imaginary
    parts of all channels, dilated 1, 2 and 4 in time and strided by 2 in frequency, with weight normalization and
    leaky ReLU. Spectra are scaled such that white noise of unit variance has unit variance in every bin.
    """

    def __init__(self, *, audio_channels: int, n_ffts: tuple[int, ...], hops: tuple[int, ...], channels: int) -> None:
        """Takes the sizes of the transforms in samples.

        Args:
            audio_channels: channels of the audio.
            n_ffts: lengths of the Fourier transforms and windows, one a discriminator.
            hops: samples from frame to frame.
            channels: filters of each hidden layer.

        Raises:
            PartitaError: there are not as many hops as transforms.
        """
        super().__init__()
        if not len(n_ffts) == len(hops) > 0:
            raise PartitaError(f"{len(n_ffts)} FFTs and {len(hops)} hops; need as many of each")
        self.scales = nn.ModuleList(
            _ComplexSTFTDiscriminator(audio_channels=audio_channels, n_fft=n_fft, hop=hop, channels=channels)
            for n_fft, hop in zip(n_ffts, hops)
        )

    def forward(self, audio: Tensor) -> list[DiscriminatorOutput]:
        """Judges `(batch, channels, samples)`; each entry has logits `(batch, 1, frames, bands)`."""
        return [scale(audio) for scale in self.scales]


class _ComplexSTFTDiscriminator(nn.Module):
    def __init__(self, *, audio_channels: int, n_fft: int, hop: int, channels: int) -> None:
        super().__init__()
        self.stft = STFT(n_fft=n_fft, win_length=n_fft, hop=hop, padding="center", nyquist=True)
        self.scale = (3 / 8 * n_fft) ** -0.5  # the energy of a Hann window is 3/8 of its length
        self.hidden = nn.ModuleList([_conv(2 * audio_channels, channels, (3, 9))])
        for dilation in (1, 2, 4):
            self.hidden.append(_conv(channels, channels, (3, 9), stride=2, dilation=dilation))
        self.hidden.append(_conv(channels, channels, (3, 3)))
        self.last = _conv(channels, 1, (3, 3))

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        spectrum = torch.view_as_real(self.stft(audio).transpose(-1, -2)) * self.scale
        # (batch, channels * 2, frames, bins), but channels last in memory: half the time of a backward on a CPU.
        x = spectrum.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
        features = []
        for layer in self.hidden:
            x = nn.functional.leaky_relu(layer(x), LEAK)
            features.append(x)
        return DiscriminatorOutput(self.last(x), tuple(features))


def _conv(
    in_channels: int, out_channels: int, kernel: tuple[int, int], *, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """A convolution over (frames, bins) that keeps the frames, strided in frequency and dilated in time."""
    padding = (dilation * (kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=(1, stride), dilation=(dilation, 1), padding=padding)
    return weight_norm(conv)
