"""Baselines that every model is compared with: silence, spectrally matched noise, and the input low-passed."""

import torch
from partita_blocks.spectral import STFT
from partita_core import keyed_noise
from torch import Tensor
from torch.nn import functional as F

from partita.data.audio.resampling import resample


def silence(audio: Tensor) -> Tensor:
    """Zeros in the shape of `audio`."""
    return torch.zeros_like(audio)


def matched_noise(audio: Tensor, *, seed: int, key: str = "", window: int = 2048) -> Tensor:
    """Stationary Gaussian noise with the long-term spectrum and level of the audio, per channel.

    The spectrum is Welch's: the mean power of Hann windows, a quarter of their length apart. The level is exact.

    Args:
        audio: `(channels, samples)`.
        seed: noise seed.
        key: name of the clip, so that clips get different noise; equal seed and key give equal noise.
        window: length of the windows in samples.

    Returns:
        `(channels, samples)` of the dtype of `audio`; silent channels stay silent.
    """
    signal = audio.detach().to("cpu", torch.float64)
    spectrum = welch(signal, window)
    samples = signal.shape[-1]
    # Drawn in the frequency domain: any length, no edge effects, and the spectrum is applied exactly.
    draw = keyed_noise([seed], "matched_noise", key, shape=(signal.shape[0], samples // 2 + 1, 2))[0].double()
    shape = F.interpolate(spectrum.sqrt()[None], size=draw.shape[1], mode="linear", align_corners=True)[0]
    noise = torch.fft.irfft(torch.view_as_complex(draw) * shape, n=samples)
    level, drawn = (x.square().mean(-1, keepdim=True).sqrt() for x in (signal, noise))
    noise = torch.where(drawn > 0, noise * (level / drawn), 0)
    return noise.to(audio)


def welch(signal: Tensor, window: int) -> Tensor:
    """Long-term power spectrum `(channels, window // 2 + 1)` of `(channels, samples)`."""
    transform = STFT(n_fft=window, win_length=window, hop=window // 4, padding="center", nyquist=True)
    return transform(signal).abs().square().mean(-1)


def low_passed(audio: Tensor, *, sample_rate: int, floats_per_second: float) -> Tensor:
    """The audio resampled to a rate of `floats_per_second` numbers for all its channels, and back.

    The result of plain resampling with the same budget of numbers: `floats_per_second / channels` samples per second,
    rounded to an integer, keep frequencies below half as many Hz. A budget no smaller than the audio's own returns the
    audio; a clip shorter than one sample of the lower rate becomes silent.

    Args:
        audio: `(channels, samples)`.
        sample_rate: sample rate of the audio in Hz.
        floats_per_second: budget of numbers per second.

    Returns:
        `(channels, samples)` of the dtype of `audio`.
    """
    rate = max(1, round(floats_per_second / audio.shape[0]))
    if rate >= sample_rate:
        return audio.clone()
    narrow = resample(audio.detach().cpu(), sample_rate, rate)
    return fit(resample(narrow, rate, sample_rate), audio.shape[-1]).to(audio)


def fit(audio: Tensor, samples: int) -> Tensor:
    """Audio truncated, or padded with zeros, to exactly `samples` samples."""
    return F.pad(audio, (0, max(0, samples - audio.shape[-1])))[..., :samples]
