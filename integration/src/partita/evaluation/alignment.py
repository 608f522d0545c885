"""Alignment of decoded audio with the clip that it was decoded from."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .references import fit


def align(decoded: Tensor, clip: Tensor, *, known: int = 0, search: int = 0) -> Tensor:
    """Compensate the delay of a decoded signal, and give it the channels and the length of its clip.

    Args:
        decoded: decoded signal `(channels, samples)` at the sample rate of the clip; other numbers of channels than the
            clip's are averaged to mono and repeated.
        clip: the clip, `(channels, samples)`.
        known: known delay in samples.
        search: largest deviation from the known delay that is searched for the highest correlation, in samples.

    Returns:
        Audio in the shape of the clip, zero where there is no decoded signal.
    """
    decoded = decoded.to(clip)
    if decoded.shape[0] != clip.shape[0]:
        decoded = decoded.mean(0, keepdim=True).expand(clip.shape[0], -1)
    late = known + delay(_advance(decoded, known), clip, limit=search)
    return fit(_advance(decoded, late), clip.shape[-1])


def delay(signal: Tensor, reference: Tensor, *, limit: int) -> int:
    """Delay in samples of a signal `(channels, samples)` at which its correlation with a reference is highest.

    Args:
        signal: the delayed signal.
        reference: signal of any length with as many channels.
        limit: largest absolute delay.

    Returns:
        The delay, negative if the signal is early; 0 if no delay has a higher correlation.
    """
    samples = reference.shape[-1]
    signal = signal[:, : samples + limit]
    size = 1 << (samples + signal.shape[-1] + limit).bit_length()
    spectra = [torch.fft.rfft(x.double(), n=size) for x in (signal, reference)]
    correlation = torch.fft.irfft((spectra[0] * spectra[1].conj()).sum(0), n=size)
    found = correlation[torch.arange(-limit, limit + 1)]  # negative delays are at the end
    best = int(found.argmax())
    return best - limit if found[best] > correlation[0] else 0


def _advance(signal: Tensor, samples: int) -> Tensor:
    return signal[:, samples:] if samples > 0 else F.pad(signal, (-samples, 0))
