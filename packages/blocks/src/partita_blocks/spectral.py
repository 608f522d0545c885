"""Spectra of audio: the short-time Fourier transform and its inverse, mel bands and A-weighting."""

import math
from typing import Literal

import torch
from partita_core import Constant, PartitaError, upcast
from torch import Tensor, nn

# Added to squared magnitudes, so that roots and quotients of them stay finite at silence; no audible figure moves, and
# float32 holds the quotient of the loudest by it.
TINY = 1e-28


class STFT(nn.Module):
    """The short-time Fourier transform with a periodic Hann window, and its inverse.

    A frame takes `n_fft` samples; a shorter window sits in their middle, as in `torch.stft`. The number of frames of
    `samples` samples depends on how the ends are padded, by reflection, which works for every length:

    * `"center"`: `n_fft // 2` at both ends, `1 + samples // hop` frames (of an even `n_fft`), frame t centered on
      sample `t * hop`;
    * `"same"`: `n_fft - hop` in all, `samples // hop` frames, frame t centered on the t-th block of `hop` samples;
    * `"none"`: nothing, `1 + (samples - n_fft) // hop` frames.

    The window is made in float64 at each call, so that it is exact whatever the module is cast to.
    """

    def __init__(
        self,
        *,
        n_fft: int,
        win_length: int,
        hop: int,
        padding: Literal["center", "same", "none"],
        nyquist: bool,
    ) -> None:
        """Takes the sizes in samples.

        Args:
            n_fft: length of the Fourier transform.
            win_length: length of the window.
            hop: samples from frame to frame.
            padding: how the ends are padded, see above.
            nyquist: whether the bin at half the sample rate is kept; without it an even `n_fft` has `n_fft // 2` bins.

        Raises:
            PartitaError: the window is longer than the transform, or the hop longer than the window.
        """
        super().__init__()
        if not 1 <= hop <= win_length <= n_fft:
            raise PartitaError(
                f"STFT with hop {hop}, window {win_length} and FFT {n_fft}: need 1 <= hop <= window <= FFT"
            )
        if not nyquist and n_fft % 2:
            raise PartitaError(f"an FFT of {n_fft} has no Nyquist bin to drop; take an even one")
        self.n_fft, self.win_length, self.hop, self.padding, self.nyquist = n_fft, win_length, hop, padding, nyquist
        self.bins = n_fft // 2 + 1 if nyquist else n_fft // 2
        around = {"center": 2 * (n_fft // 2), "same": n_fft - hop, "none": 0}[padding]
        self.left, self.right = around // 2, around - around // 2

    def window(self, like: Tensor) -> Tensor:
        """The window, `(n_fft,)`, in the type and on the device of the tensor `like`."""
        margin = self.n_fft - self.win_length
        window = torch.hann_window(self.win_length, dtype=torch.float64, device=like.device).to(like.dtype)
        return nn.functional.pad(window, (margin // 2, margin - margin // 2))

    def forward(self, audio: Tensor) -> Tensor:
        """Transforms `(..., samples)` to complex `(..., bins, frames)`; half types are lifted to float32."""
        audio = upcast(audio)
        padded = reflect(audio, self.left, self.right) if self.padding != "none" else audio
        frames = padded.unfold(-1, self.n_fft, self.hop) * self.window(audio)
        return torch.fft.rfft(frames)[..., : self.bins].transpose(-1, -2)

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Overlap-add with the same window, divided by the sum of its squares.

        Exact on what `forward` made wherever windows overlap, which at padded ends is everywhere, and, without the
        Nyquist bin, on what has no energy there. Of other spectra it gives the audio whose transform is nearest
        (Griffin and Lim, 1984).

        Args:
            spectrum: complex `(..., bins, frames)`.
            length: samples wanted, at most those that the frames reach.

        Returns:
            `(..., length)`.
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
        """The transposed map: from the gradient of a real figure by the spectrum to that by the audio.

        Autograd gets the same through a full complex transform; this takes a third of the time.

        Args:
            gradient: complex `(..., bins, frames)`, derivative by the real part + i * derivative by the imaginary.
            length: samples of the audio that was transformed.

        Returns:
            `(..., length)`.
        """
        # The inverse real transform counts each bin twice (it stands for its mirror image), but for those that have
        # no mirror image: the first, and with an even size the Nyquist bin.
        weights = gradient.real.new_full((self.bins,), 0.5)
        weights[0] = 1
        if self.nyquist and self.n_fft % 2 == 0:
            weights[-1] = 1
        spectrum = gradient.transpose(-1, -2) * weights
        frames = torch.fft.irfft(spectrum, n=self.n_fft, norm="forward")
        padded = overlap_add(frames.mul_(self.window(frames)), self.hop)
        # The samples after the last frame, which no frame saw, have no gradient.
        padded = nn.functional.pad(padded, (0, self.left + length + self.right - padded.shape[-1]))
        before, audio, after = padded.split((self.left, length, self.right), dim=-1)
        audio = audio.clone()
        for edge, start in ((before, -self.left), (after, length)):
            index = mirrored(length, start, start + edge.shape[-1], audio.device)
            audio.scatter_add_(-1, index.expand(edge.shape), edge)
        return audio


def mirrored(length: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Where the positions `start` to `stop` of a signal continued by reflection are in its `length` samples.

    Both ends mirror without repeating their sample, again and again for positions further out than the signal is
    long; one sample alone repeats.
    """
    period = torch.sym_max(2 * length - 2, 1)
    phase = torch.arange(start, stop, device=device) % period
    return torch.minimum(phase, period - phase)


def reflect(audio: Tensor, left: int, right: int) -> Tensor:
    """Pads `(..., samples)` by reflection; unlike `torch`'s, also by more than there are samples."""
    length = audio.shape[-1]
    before = mirrored(length, -left, 0, audio.device)
    after = mirrored(length, length, length + right, audio.device)
    return torch.cat([audio[..., before], audio, audio[..., after]], dim=-1)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Adds `(..., frames, size)`, each `hop` samples after the one before, to `(..., (frames - 1) * hop + size)`."""
    count, size = frames.shape[-2:]
    audio = frames.new_zeros(*frames.shape[:-2], count + (size - 1) // hop, hop)
    for first, start in enumerate(range(0, size, hop)):
        piece = frames[..., start : start + hop]
        audio[..., first : first + count, : piece.shape[-1]] += piece
    return audio.flatten(-2)[..., : (count - 1) * hop + size]


def power(spectrum: Tensor) -> Tensor:
    """Squared magnitudes of a complex tensor, never quite zero."""
    real, imaginary = torch.view_as_real(spectrum).square().unbind(-1)
    return (real + imaginary).add_(TINY)


def mel_filterbank(*, sample_rate: int, n_fft: int, num_mels: int, f_min: float, f_max: float) -> Tensor:
    """Triangular bands, equally spaced on Slaney's mel scale (Auditory Toolbox, 1998), each of unit area.

    The scale is linear up to 1 kHz and logarithmic above. Equal to `librosa.filters.mel` as it comes. A band narrower
    than the distance of two bins may hold none, and is zero.

    Args:
        sample_rate: samples a second.
        n_fft: length of the Fourier transform.
        num_mels: number of bands.
        f_min: lower edge of the first, in Hz.
        f_max: upper edge of the last, in Hz.

    Returns:
        `(n_fft // 2 + 1, num_mels)` float64, on the CPU; a magnitude spectrum times it gives the bands.

    Raises:
        PartitaError: the edges are not in order, or above half the sample rate.
    """
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise PartitaError(f"mel bands from {f_min} to {f_max} Hz do not fit in 0 to {sample_rate / 2} Hz")
    step, knee = math.log(6.4) / 27, 15.0  # 27 mels from 1 kHz to 6.4 kHz; 1 kHz is mel 15

    def to_mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else knee + math.log(hertz / 1000) / step

    first, last = to_mel(f_min), to_mel(f_max)
    # Not by linspace: torch may not know it for a maker of meta tensors once transformers has loaded a model.
    mels = first + (last - first) / (num_mels + 1) * torch.arange(num_mels + 2, dtype=torch.float64, device="cpu")
    edges = torch.where(mels < knee, mels * 200 / 3, 1000 * torch.exp(step * (mels - knee)))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu").unsqueeze(1) * sample_rate / n_fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0) * 2 / (edges[2:] - edges[:-2])


def a_weighting(frequencies: Tensor) -> Tensor:
    """The A-weighting curve (IEC 61672-1) as a gain on magnitudes: 1 at 1 kHz, 0 at 0 Hz.

    Args:
        frequencies: in Hz, any shape.

    Returns:
        Gains of the same shape, float64.
    """

    def curve(f: Tensor) -> Tensor:
        f2 = f.square()
        middle = ((f2 + 107.65265**2) * (f2 + 737.86223**2)).sqrt()
        return 12194.217**2 * f2.square() / ((f2 + 20.598997**2) * middle * (f2 + 12194.217**2))

    return curve(frequencies.double()) / curve(torch.tensor(1000.0, dtype=torch.float64, device=frequencies.device))


class LogMel(nn.Module):
    """Natural logarithm of mel-band magnitudes."""

    def __init__(
        self,
        *,
        sample_rate: int,
        n_fft: int,
        hop: int,
        padding: Literal["center", "same", "none"],
        num_mels: int,
        f_min: float,
        f_max: float,
        floor: float,
    ) -> None:
        """Takes the sizes of the transform (see `STFT`) and the bands (see `mel_filterbank`).

        Args:
            sample_rate: samples a second.
            n_fft: length of the Fourier transform and of its window.
            hop: samples from frame to frame.
            padding: how the ends are padded.
            num_mels: number of bands.
            f_min: lower edge of the first, in Hz.
            f_max: upper edge of the last, in Hz.
            floor: smallest magnitude of a band; below it the gradient is zero.
        """
        super().__init__()
        self.stft = STFT(n_fft=n_fft, win_length=n_fft, hop=hop, padding=padding, nyquist=True)
        self.floor = floor
        bank = mel_filterbank(sample_rate=sample_rate, n_fft=n_fft, num_mels=num_mels, f_min=f_min, f_max=f_max)
        self.filterbank = Constant(bank)

    def forward(self, audio: Tensor) -> Tensor:
        """Maps `(..., samples)` to `(..., num_mels, frames)`, at least float32; frames as `STFT` counts them."""
        with torch.autocast(audio.device.type, enabled=False):
            magnitudes = power(self.stft(audio).transpose(-1, -2)).sqrt()
            mel = magnitudes @ self.filterbank.like(magnitudes)
            return mel.clamp_min(self.floor).log().transpose(-1, -2)
