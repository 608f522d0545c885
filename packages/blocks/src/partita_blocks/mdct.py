"""Modified discrete cosine transform: a lapped transform with as many numbers as samples."""

import math

import torch
from partita_core import PartitaError, TypedModule, upcast
from torch import Tensor, nn

from .spectral import overlap_add


class MDCT(TypedModule):
    """Modified discrete cosine transform with a sine window, and its inverse (Princen, Johnson and Bradley, 1987).

    Each frame has `hop` real bins and covers `2 * hop` samples, centered on its block of `hop` samples. Audio is zero
    before its beginning and after its end. The transform of audio of full frames is invertible, and orthonormal except
    in the first and last half block: energy in the bins is energy in the samples.

    Args:
        hop: samples between frames, and bins per frame; bin k is centered on `(k + 0.5) * sample_rate / (2 * hop)` Hz.

    Raises:
        PartitaError: `hop` is less than 2.

    Example:
        >>> mdct = MDCT(320)
        >>> bins = mdct(torch.randn(1, 2, 16_000))
        >>> bins.shape, mdct.inverse(bins).shape
        (torch.Size([1, 2, 320, 50]), torch.Size([1, 2, 16000]))
    """

    def __init__(self, hop: int) -> None:
        super().__init__()
        if hop < 2:
            raise PartitaError(f"hop is {hop}; an MDCT needs at least 2 samples per frame")
        self.hop = hop
        # With an odd hop, the sample in the middle of a half window is its own mirror image. Aliases are subtracted in
        # the first half, where it would be lost at the beginning of the audio, and added in the second.
        self.left, self.right = hop - hop // 2, hop // 2

    def forward(self, audio: Tensor) -> Tensor:
        """Transform audio `(..., hop * frames)` to `(..., hop, frames)`, computed in at least float32.

        Raises:
            PartitaError: the number of samples is not a multiple of the hop.
        """
        if audio.shape[-1] % self.hop:
            raise PartitaError(f"{audio.shape[-1]} samples are not full frames of {self.hop}; pad them first")
        audio = upcast(audio)
        frames = nn.functional.pad(audio, (self.left, self.right)).unfold(-1, 2 * self.hop, self.hop)
        before, after = self._rotations(audio)
        spectrum = torch.fft.fft(frames * self._window(audio) * before)[..., : self.hop]
        return (spectrum * after).real.transpose(-1, -2)

    def inverse(self, bins: Tensor) -> Tensor:
        """Transform bins `(..., hop, frames)` to audio `(..., hop * frames)`, computed in at least float32."""
        bins = upcast(bins).transpose(-1, -2)
        window, (before, after) = self._window(bins), self._rotations(bins)
        spectrum = bins * after.conj()
        frames = (torch.fft.ifft(spectrum, n=2 * self.hop, norm="forward") * before.conj()).real * window
        samples = bins.shape[-2] * self.hop
        # The half blocks at both ends are covered by one frame only.
        first, last = window[self.left : self.hop].square(), window[self.hop : 2 * self.hop - self.right].square()
        if self.hop % 2:
            last = last * torch.where(torch.arange(len(last), device=last.device) == self.hop // 2, 2, 1)
        energy = torch.cat([first, window.new_ones(samples - len(first) - len(last)), last])
        return overlap_add(frames, self.hop)[..., self.left : self.left + samples] / energy

    def _window(self, like: Tensor) -> Tensor:
        position = torch.arange(2 * self.hop, dtype=torch.float64, device=like.device) + 0.5
        return (position * (math.pi / (2 * self.hop))).sin().to(like.dtype)

    def _rotations(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Complex factors before and after a discrete Fourier transform that make it the cosine transform.

        Bin k is `sqrt(2 / hop)` times the sum over n of `x[n] cos(pi / hop (n + (hop + 1) / 2) (k + 1 / 2))`.
        """
        n = torch.arange(2 * self.hop, dtype=torch.float64, device=like.device)
        before = torch.polar(torch.ones_like(n), -math.pi / (2 * self.hop) * n)
        angles = -math.pi / (2 * self.hop) * (self.hop + 1) * (n[: self.hop] + 0.5)
        after = torch.polar(torch.full_like(angles, math.sqrt(2 / self.hop)), angles)
        dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
        return before.to(dtype), after.to(dtype)
