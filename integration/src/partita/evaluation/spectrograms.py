"""STFTs and mel bands, scaled so that a full-scale sine has magnitude 1."""

from partita_blocks.spectral import STFT, mel_filterbank
from torch import Tensor


def spectrum(signal: Tensor, window: int, hop: int) -> Tensor:
    """Complex STFT with a Hann window.

    Frames are centered and the signal is extended by reflection, so one sample is enough.

    Args:
        signal: `(channels, samples)`.
        window: length of the window in samples.
        hop: samples between frames.

    Returns:
        Complex `(channels, window // 2 + 1, 1 + samples // hop)`.
    """
    transform = _stft(window, hop)
    return transform(signal) * _scale(transform, signal)


def magnitudes(signal: Tensor, window: int, hop: int) -> Tensor:
    """Magnitudes of `spectrum`, real, in the same shape."""
    transform = _stft(window, hop)
    found = transform(signal)
    power = found.real.square() + found.imag.square()
    return power.sqrt() * _scale(transform, signal)


def mel_bands(*, sample_rate: int, window: int, num_mels: int) -> Tensor:
    """Weights of STFT bins in triangular bands on Slaney's mel scale, from 0 Hz to half the sample rate.

    Bands without a bin (narrow bands at high sample rates) are left out.

    Args:
        sample_rate: sample rate in Hz.
        window: length of the Fourier transform.
        num_mels: number of bands.

    Returns:
        `(bands, window // 2 + 1)` float32 with at most `num_mels` bands; the weights of a band add up to 1.
    """
    bank = mel_filterbank(sample_rate=sample_rate, n_fft=window, num_mels=num_mels, f_min=0.0, f_max=sample_rate / 2)
    weight = bank.sum(0, keepdim=True)
    return (bank / weight)[:, weight[0] > 0].T.float()


def _stft(window: int, hop: int) -> STFT:
    return STFT(n_fft=window, win_length=window, hop=hop, padding="center", nyquist=True)


def _scale(transform: STFT, signal: Tensor) -> Tensor:
    return 2 / transform.window(signal).sum()
