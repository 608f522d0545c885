"""Spectra of audio: short-time Fourier transform and its inverse, mel bands, A-weighting."""

import math
from typing import Literal

import torch
from partita_core import Constant, PartitaError, TypedModule, upcast
from torch import Tensor, nn

from .native import _spectra_cpu

# Added to squared magnitudes, so that roots and quotients of them stay finite for silence; inaudibly small, and the
# quotient of the loudest audio by it is still a finite float32.
TINY = 1e-28


class STFT(TypedModule):
    """Short-time Fourier transform with a periodic Hann window, and its inverse.

    A frame covers `n_fft` samples; a shorter window is centered in it, as in `torch.stft`. The number of frames of
    `samples` samples depends on the padding, which is by reflection and works for every length:

    * `"center"`: `n_fft // 2` at both ends, `1 + samples // hop` frames (for an even `n_fft`), frame t centered on
      sample `t * hop`;
    * `"same"`: `n_fft - hop` in total, `samples // hop` frames, frame t centered on the t-th block of `hop` samples;
    * `"none"`: no padding, `1 + (samples - n_fft) // hop` frames.

    The window is exact whatever dtype the module is cast to.

    Args:
        n_fft: length of the Fourier transform in samples.
        hop: samples between frames.
        win_length: length of the window in samples; None for `n_fft`.
        padding: padding of the ends, see above.
        nyquist: whether to keep the bin at half the sample rate; without it, an even `n_fft` has `n_fft // 2` bins.

    Raises:
        PartitaError: the window is longer than the transform, the hop is longer than the window, or there is no Nyquist
            bin to drop.

    Attributes:
        bins: number of frequencies.

    Example:
        >>> stft = STFT(n_fft=1024, hop=256)
        >>> spectrum = stft(torch.randn(1, 2, 44_100))
        >>> spectrum.shape, stft.inverse(spectrum, 44_100).shape
        (torch.Size([1, 2, 513, 173]), torch.Size([1, 2, 44100]))
    """

    def __init__(
        self,
        *,
        n_fft: int,
        hop: int,
        win_length: int | None = None,
        padding: Literal["center", "same", "none"] = "center",
        nyquist: bool = True,
    ) -> None:
        super().__init__()
        win_length = n_fft if win_length is None else win_length
        if not 1 <= hop <= win_length <= n_fft:
            raise PartitaError(
                f"hop is {hop}, win_length is {win_length} and n_fft is {n_fft}; need 1 <= hop <= win_length <= n_fft"
            )
        if not nyquist and n_fft % 2:
            raise PartitaError(f"n_fft is {n_fft}, which has no Nyquist bin to drop; use an even number")
        self.n_fft, self.win_length, self.hop, self.padding, self.nyquist = n_fft, win_length, hop, padding, nyquist
        self.bins = n_fft // 2 + 1 if nyquist else n_fft // 2
        margin = n_fft - win_length
        window = torch.hann_window(win_length, dtype=torch.float64, device="cpu")
        self._window = Constant(nn.functional.pad(window, (margin // 2, margin - margin // 2)))
        padded = {"center": 2 * (n_fft // 2), "same": n_fft - hop, "none": 0}[padding]
        self.left, self.right = padded // 2, padded - padded // 2

    @property
    def energy(self) -> float:
        """Sum of the squares of the window: the power of white noise of unit variance in a bin."""
        return 3 / 8 * self.win_length

    def window(self, like: Tensor) -> Tensor:
        """Window `(n_fft,)` with the dtype and on the device of the tensor `like`; do not write to it."""
        return self._window.like(like)

    def forward(self, audio: Tensor) -> Tensor:
        """Transform audio `(..., samples)` to complex `(..., bins, frames)`, computed in at least float32."""
        audio = upcast(audio)
        if _spectra_cpu.serves(audio):
            count = (audio.shape[-1] + self.left + self.right - self.n_fft) // self.hop + 1
            frames = _spectra_cpu.make_frames(audio, self.window(audio), count=count, hop=self.hop, left=self.left)
            return torch.fft.rfft(frames)[..., : self.bins].transpose(-1, -2)
        padded = reflect_pad(audio, self.left, self.right) if self.padding != "none" else audio
        frames = padded.unfold(-1, self.n_fft, self.hop) * self.window(audio)
        return torch.fft.rfft(frames)[..., : self.bins].transpose(-1, -2)

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Transform spectra to audio, by overlap-add with the same window, divided by the sum of its squares.

        It is the exact inverse of `forward` wherever windows overlap, which with padding is everywhere, provided that a
        dropped Nyquist bin has no energy. For other spectra the result is the audio whose transform is nearest to them
        (Griffin and Lim, 1984).

        Args:
            spectrum: complex `(..., bins, frames)`.
            length: number of samples to return, at most those that the frames cover.

        Returns:
            Audio `(..., length)`.
        """
        spectrum = spectrum.transpose(-1, -2)
        if not self.nyquist:
            spectrum = nn.functional.pad(spectrum, (0, 1))
        frames = torch.fft.irfft(spectrum, n=self.n_fft)
        window = self.window(frames)
        audio = overlap_add(frames * window, self.hop)
        energy = overlap_add(window.square().expand(frames.shape[-2], -1), self.hop)
        return (audio / energy.clamp_min(TINY))[..., self.left : self.left + length]

    def adjoint(self, gradient: Tensor, length: int) -> Tensor:
        """Apply the transposed map: the gradient of a real value with respect to the spectrum, to that of the audio.

        Autograd computes the same through a full complex transform, in three times the time.

        Args:
            gradient: complex `(..., bins, frames)`: derivatives with respect to the real parts, plus i times those with
                respect to the imaginary parts.
            length: number of samples of the audio that was transformed.

        Returns:
            `(..., length)`.
        """
        if _spectra_cpu.serves(gradient):
            return self._fast_adjoint(gradient.transpose(-1, -2), length)
        # The inverse real transform counts each bin twice, once for its mirror image, except for the bins without one:
        # the first, and for an even size the Nyquist bin.
        weights = gradient.real.new_full((self.bins,), 0.5)
        weights[0] = 1
        if self.nyquist and self.n_fft % 2 == 0:
            weights[-1] = 1
        spectrum = gradient.transpose(-1, -2) * weights
        frames = torch.fft.irfft(spectrum, n=self.n_fft, norm="forward")
        padded = overlap_add(frames.mul_(self.window(frames)), self.hop)
        # Samples after the last frame have no gradient.
        padded = nn.functional.pad(padded, (0, self.left + length + self.right - padded.shape[-1]))
        before, audio, after = padded.split((self.left, length, self.right), dim=-1)
        audio = audio.clone()
        for edge, start in ((before, -self.left), (after, length)):
            index = reflected_positions(length, start, start + edge.shape[-1], audio.device)
            audio.scatter_add_(-1, index.expand(edge.shape), edge)
        return audio

    def _fast_adjoint(self, gradient: Tensor, length: int) -> Tensor:
        """`adjoint` of `(..., frames, bins)` by a kernel: half the inverse transform, and the rest of the two ends."""
        frames = torch.fft.irfft(gradient, n=self.n_fft, norm="forward")
        ends = torch.view_as_real(gradient)[..., (0, -1), 0]
        if not self.nyquist or self.n_fft % 2:
            ends[..., 1] = 0
        window = self.window(frames)
        return _spectra_cpu.add_frames(frames, ends, window, samples=length, hop=self.hop, left=self.left)


def reflected_positions(length: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Positions, within the `length` samples of a signal, of the samples `start` to `stop` of its reflected extension.

    Both ends reflect without repeating their sample, and repeatedly for positions further out than the signal is long;
    a single sample repeats.
    """
    period = torch.sym_max(2 * length - 2, 1)
    phase = torch.arange(start, stop, device=device) % period
    return torch.minimum(phase, period - phase)


def reflect_pad(audio: Tensor, left: int, right: int) -> Tensor:
    """Pad audio `(..., samples)` by reflection, also by more samples than it has, unlike `torch.nn.functional.pad`."""
    length = audio.shape[-1]
    before = reflected_positions(length, -left, 0, audio.device)
    after = reflected_positions(length, length, length + right, audio.device)
    return torch.cat([audio[..., before], audio, audio[..., after]], dim=-1)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Add up frames `(..., frames, size)` that are `hop` samples apart, to `(..., (frames - 1) * hop + size)`."""
    count, size = frames.shape[-2:]
    audio = frames.new_zeros(*frames.shape[:-2], count + (size - 1) // hop, hop)
    for first, start in enumerate(range(0, size, hop)):
        piece = frames[..., start : start + hop]
        audio[..., first : first + count, : piece.shape[-1]] += piece
    return audio.flatten(-2)[..., : (count - 1) * hop + size]


def power(spectrum: Tensor) -> Tensor:
    """Squared magnitudes of a complex tensor, plus a tiny constant that keeps them above zero."""
    real, imaginary = torch.view_as_real(spectrum).square().unbind(-1)
    return (real + imaginary).add_(TINY)


def mel_filterbank(*, sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters of unit area, equally spaced on Slaney's mel scale (Auditory Toolbox, 1998).

    The scale is linear up to 1 kHz and logarithmic above. The result equals `librosa.filters.mel` with its defaults. A
    band narrower than the distance between two bins may contain none of them, and is zero.

    Args:
        sample_rate: samples per second.
        n_fft: length of the Fourier transform in samples.
        num_mels: number of bands.
        f_min: lower edge of the first band, in Hz.
        f_max: upper edge of the last band, in Hz.

    Returns:
        Matrix `(n_fft // 2 + 1, num_mels)` float64 on the CPU, which maps magnitudes of bins to those of bands.

    Raises:
        PartitaError: the edges are not in order, or above half the sample rate.
    """
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise PartitaError(f"mel bands from {f_min} to {f_max} Hz; need 0 <= f_min < f_max <= {sample_rate / 2} Hz")
    step, knee = math.log(6.4) / 27, 15.0  # 27 mels from 1 kHz to 6.4 kHz; 1 kHz is mel 15

    def to_mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else knee + math.log(hertz / 1000) / step

    first, last = to_mel(f_min), to_mel(f_max)
    # Without linspace: after transformers has loaded a model, device contexts may not recognize it as a factory.
    mels = first + (last - first) / (num_mels + 1) * torch.arange(num_mels + 2, dtype=torch.float64, device="cpu")
    edges = torch.where(mels < knee, mels * 200 / 3, 1000 * torch.exp(step * (mels - knee)))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu").unsqueeze(1) * sample_rate / n_fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0) * 2 / (edges[2:] - edges[:-2])


def a_weighting(frequencies: Tensor) -> Tensor:
    """A-weighting curve (IEC 61672-1) as a gain on magnitudes: 1 at 1 kHz, 0 at 0 Hz.

    Args:
        frequencies: frequencies in Hz, any shape.

    Returns:
        Gains of the same shape, float64.
    """

    def curve(f: Tensor) -> Tensor:
        f2 = f.square()
        middle = ((f2 + 107.65265**2) * (f2 + 737.86223**2)).sqrt()
        return 12194.217**2 * f2.square() / ((f2 + 20.598997**2) * middle * (f2 + 12194.217**2))

    return curve(frequencies.double()) / curve(torch.tensor(1000.0, dtype=torch.float64, device=frequencies.device))


class LogMel(TypedModule):
    """Natural logarithm of the magnitudes in mel bands.

    Args:
        sample_rate: samples per second.
        n_fft: length of the Fourier transform and of its window in samples.
        hop: samples between frames.
        num_mels: number of bands.
        padding: padding of the ends, see `STFT`.
        f_min: lower edge of the first band, in Hz.
        f_max: upper edge of the last band, in Hz; None for half the sample rate.
        floor: smallest magnitude of a band; below it the gradient is zero.

    Example:
        >>> mel = LogMel(sample_rate=24_000, n_fft=1024, hop=256, num_mels=80, padding="same")
        >>> mel(torch.randn(1, 1, 25_600)).shape
        torch.Size([1, 1, 80, 100])
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int,
        hop: int,
        num_mels: int,
        padding: Literal["center", "same", "none"] = "center",
        f_min: float = 0.0,
        f_max: float | None = None,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        self.stft = STFT(n_fft=n_fft, hop=hop, padding=padding)
        f_max = sample_rate / 2 if f_max is None else f_max
        self.floor = floor
        bank = mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, num_mels=num_mels, f_min=f_min, f_max=f_max)
        self.filterbank = Constant(bank)

    def forward(self, audio: Tensor) -> Tensor:
        """Map audio `(..., samples)` to `(..., num_mels, frames)`, at least float32; see `STFT` for the frames."""
        with torch.autocast(audio.device.type, enabled=False):
            magnitudes = power(self.stft(audio).transpose(-1, -2)).sqrt()
            mel = magnitudes @ self.filterbank.like(magnitudes)
            return mel.clamp_min(self.floor).log().transpose(-1, -2)
