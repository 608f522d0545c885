"""Magnitude spectra as the metrics see them."""

from partita_blocks.spectral import STFT
from torch import Tensor


def magnitudes(signal: Tensor, window: int, hop: int) -> Tensor:
    """Magnitudes of a Hann STFT, scaled so that a full-scale sine has a peak of 1.

    Frames are centred and the ends continue by reflection, so that one sample is enough.

    Args:
        signal: `(channels, samples)`.
        window: length of the window, in samples.
        hop: samples between frames.

    Returns:
        `(channels, window // 2 + 1, 1 + samples // hop)`.
    """
    transform = STFT(n_fft=window, win_length=window, hop=hop, padding="center", nyquist=True)
    spectrum = transform(signal)
    power = spectrum.real.square() + spectrum.imag.square()
    return power.sqrt() * (2 / transform.window(signal).sum())
