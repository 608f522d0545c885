"""The companded complex spectrogram that Music2Latent and its successors work in."""

from typing import Literal

import torch
from partita_core import AudioTransform, Constant, PartitaError, upcast
from torch import Tensor
from torch.nn import functional as F

from .spectral import STFT

# Smallest squared magnitude that is companded by its power; below, the map is linear, so that its slope is bounded.
_FLOOR = 1e-8


class CompandedSTFT(AudioTransform):
    """The complex STFT with its magnitudes companded, real and imaginary parts as channels (Music2Latent, CoDiCodec).

    A frame c becomes `scale * c * |c| ** (exponent - 1)`, which keeps the phase ("polar"), or the same is done to its
    real and its imaginary part each ("component"). Before that its frequencies may be tilted: music falls by about
    6 dB an octave, so that companded high ones still are 20 times smaller than low ones, and hardly weigh in a loss.

    Zeros are put at both ends, `(n_fft - hop) / 2` of them, so that frames are exactly samples / hop, and the inverse
    divides by the sum of squared windows that there actually is: nothing fades in or out at the ends of a file. There
    are `n_fft / 2` rows: the Nyquist bin has none, its value, which is real, stands where the imaginary part of bin 0
    would be zero. So the inverse is exact on all audio.

    Attributes:
        bins: rows, `n_fft / 2`.
        padding: samples before the first block of `hop` samples that its frame sees, and as many behind it.
    """

    def __init__(
        self,
        *,
        n_fft: int,
        hop: int,
        companding: Literal["polar", "component"],
        scale: float,
        exponent: float,
        tilt: float,
    ) -> None:
        """Takes the sizes in samples, and the law of companding.

        Args:
            n_fft: window and FFT.
            hop: between frames.
            companding: of magnitudes, or of real and imaginary parts.
            scale: after companding.
            exponent: of companding.
            tilt: dB an octave by which frequencies above 1/64 of the highest are raised.

        Raises:
            PartitaError: frames do not overlap by half, or the padding is not whole.
        """
        super().__init__()
        if n_fft % 2 or hop % 2 or not 2 <= 2 * hop <= n_fft:
            raise PartitaError(f"n_fft is {n_fft} and its hop {hop}; both must be even, the hop at most half of n_fft")
        if not (scale > 0 and 0 < exponent <= 1):
            raise PartitaError(
                f"companding with scale {scale} and exponent {exponent}; need 0 < scale, 0 < exponent <= 1"
            )
        self.stft = STFT(n_fft=n_fft, win_length=n_fft, hop=hop, padding="none", nyquist=True)
        self.hop, self.bins, self.padding = hop, n_fft // 2, (n_fft - hop) // 2
        self.companding, self.scale, self.exponent = companding, scale, exponent
        bins = torch.arange(self.bins, dtype=torch.float64, device="cpu")
        octaves = torch.log2(1 + (64 * bins / self.bins).square()) / 2
        self.weights = Constant((10 ** (tilt * octaves / 20))[:, None])
        reach = -(-self.padding // hop)
        self.context = (reach, reach)

    def forward(self, audio: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` to `(batch, 2 * channels, bins, frames)`, at least float32.

        Channels of stereo are L real, L imaginary, R real, R imaginary.
        """
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = self.stft(F.pad(audio, (self.padding, self.padding)))
            real, imaginary = spectrum.real, spectrum.imag
            imaginary = torch.cat([real[..., -1:, :], imaginary[..., 1:-1, :]], dim=-2)
            x = torch.stack([real[..., :-1, :], imaginary], dim=2) * self.weights.like(real)
            return (self.scale * self._power(x, self.exponent, _FLOOR)).flatten(1, 2)

    def inverse(self, x: Tensor) -> Tensor:
        """`(batch, 2 * channels, bins, frames)` to `(batch, channels, hop * frames)`, at least float32."""
        with torch.autocast(x.device.type, enabled=False):
            x = upcast(x).unflatten(1, (-1, 2)) / self.scale
            x = self._power(x, 1 / self.exponent, _FLOOR**self.exponent) / self.weights.like(x)
            real, imaginary = x.unbind(2)
            real = torch.cat([real, imaginary[..., :1, :]], dim=-2)
            spectrum = torch.complex(real, F.pad(imaginary[..., 1:, :], (0, 0, 1, 1)))
            return self.stft.inverse(spectrum, self.padding + x.shape[-1] * self.hop)[..., self.padding :]

    def _power(self, x: Tensor, exponent: float, floor: float) -> Tensor:
        """Magnitudes of `(batch, channels, 2, bins, frames)` to a power, linear where their square is below `floor`."""
        squared = x.square()
        if self.companding == "polar":
            squared = squared.sum(2, keepdim=True)
        return x * squared.clamp_min(floor).pow((exponent - 1) / 2)
