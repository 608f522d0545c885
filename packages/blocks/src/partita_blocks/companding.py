"""Companded complex spectrogram, the representation of Music2Latent and its successors."""

from typing import Literal

import torch
from einops import rearrange
from partita_core import AudioTransform, Constant, PartitaError, upcast
from torch import Tensor
from torch.nn import functional as F

from .spectral import STFT

# Squared magnitude below which the map is linear instead of a power, so that its slope is bounded.
_FLOOR = 1e-8


class CompandedSTFT(AudioTransform):
    """Complex STFT with companded magnitudes, real and imaginary parts as channels (Music2Latent, CoDiCodec).

    A bin c becomes `scale * c * |c| ** (exponent - 1)`, which keeps its phase ("polar"), or the same law is applied to
    its real and imaginary parts separately ("component"). Frequencies may be tilted first: the spectrum of music falls
    by about 6 dB per octave, so that even after companding high frequencies are 20 times smaller than low ones and
    hardly count in a loss.

    Both ends are padded with `(n_fft - hop) / 2` zeros, so that there are exactly samples / hop frames, and the inverse
    divides by the actual sum of squared windows, so that nothing fades in or out at the ends of a file. There are
    `n_fft / 2` rows: the Nyquist bin, which is real, is stored as the imaginary part of bin 0, which is zero. The
    inverse is therefore exact on all audio.

    Args:
        n_fft: length of window and FFT in samples.
        hop: samples per frame.
        companding: what is companded, magnitudes ("polar") or real and imaginary parts ("component").
        scale: factor after companding.
        exponent: exponent of the companding, in (0, 1].
        tilt: gain in dB per octave of frequencies above 1/64 of the highest one.

    Raises:
        PartitaError: frames overlap by less than half, sizes are odd, or scale or exponent are out of range.

    Attributes:
        bins: number of rows, `n_fft / 2`.
        padding: samples that a frame extends beyond its own `hop` samples, on either side.

    Example:
        >>> transform = CompandedSTFT(n_fft=2048, hop=512, companding="polar", scale=0.34, exponent=0.65, tilt=0.0)
        >>> x = transform(torch.randn(1, 2, 512 * 64))  # stereo: L real, L imaginary, R real, R imaginary
        >>> x.shape, transform.inverse(x).shape
        (torch.Size([1, 4, 1024, 64]), torch.Size([1, 2, 32768]))
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
        super().__init__()
        if n_fft % 2 or hop % 2 or not 2 <= 2 * hop <= n_fft:
            raise PartitaError(f"n_fft is {n_fft} and hop is {hop}; both must be even, and hop at most half of n_fft")
        if not (scale > 0 and 0 < exponent <= 1):
            raise PartitaError(
                f"scale is {scale} and exponent is {exponent}; scale must be positive, and exponent in (0, 1]"
            )
        self.stft = STFT(n_fft=n_fft, hop=hop, padding="none")
        self.hop, self.bins, self.padding = hop, n_fft // 2, (n_fft - hop) // 2
        self.companding, self.scale, self.exponent = companding, scale, exponent
        bins = torch.arange(self.bins, dtype=torch.float64, device="cpu")
        octaves = torch.log2(1 + (64 * bins / self.bins).square()) / 2
        self.weights = Constant((10 ** (tilt * octaves / 20))[:, None])
        frames = -(-self.padding // hop)
        self.context = (frames, frames)

    def forward(self, audio: Tensor) -> Tensor:
        """Map audio `(batch, channels, hop * frames)` to `(batch, 2 * channels, bins, frames)`, at least float32."""
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = self.stft(F.pad(audio, (self.padding, self.padding)))
            real, imaginary = spectrum.real, spectrum.imag
            imaginary = torch.cat([real[..., -1:, :], imaginary[..., 1:-1, :]], dim=-2)
            x = torch.stack([real[..., :-1, :], imaginary], dim=2) * self.weights.like(real)
            x = self.scale * self._power(x, self.exponent, _FLOOR)
            return rearrange(x, "b c complex f t -> b (c complex) f t")

    def inverse(self, x: Tensor) -> Tensor:
        """Map `(batch, 2 * channels, bins, frames)` to audio `(batch, channels, hop * frames)`, at least float32."""
        with torch.autocast(x.device.type, enabled=False):
            x = rearrange(upcast(x), "b (c complex) f t -> b c complex f t", complex=2) / self.scale
            x = self._power(x, 1 / self.exponent, _FLOOR**self.exponent) / self.weights.like(x)
            real, imaginary = x.unbind(2)
            real = torch.cat([real, imaginary[..., :1, :]], dim=-2)
            spectrum = torch.complex(real, F.pad(imaginary[..., 1:, :], (0, 0, 1, 1)))
            return self.stft.inverse(spectrum, self.padding + x.shape[-1] * self.hop)[..., self.padding :]

    def _power(self, x: Tensor, exponent: float, floor: float) -> Tensor:
        """Power of the magnitudes of `(batch, channels, 2, bins, frames)`, linear for squares below `floor`."""
        squared = x.square()
        if self.companding == "polar":
            squared = squared.sum(2, keepdim=True)
        return x * squared.clamp_min(floor).pow((exponent - 1) / 2)
