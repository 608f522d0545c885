"""Spectra in the losses on a CPU in float32, without gradients: the kernels of `spectra.hpp`.

All tensors must be float32 or complex64 on the CPU, as `serves` checks for one of them.
"""

import torch
from torch import Tensor

from ..tensors import is_plain
from .build import kernels, loaded_kernels

# Samples from which the kernels are used; below, a call costs more than it computes.
_MIN_SAMPLES = 2**12

# Bins of the widest vector.
_MIN_BINS = 16


def serves(x: Tensor) -> bool:
    """True if the kernels are available and support the tensor, and no gradient is wanted."""
    if not is_plain(x) or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.complex64):
        return False
    if x.numel() < _MIN_SAMPLES or (torch.is_grad_enabled() and x.requires_grad):
        return False
    return kernels() is not None


def serves_spectra(*spectra: Tensor) -> bool:
    """True if the kernels can compare these spectra, `(..., frames, bins)`."""
    return all(serves(x) and x.shape[-1] >= _MIN_BINS for x in spectra)


def make_frames(audio: Tensor, window: Tensor, *, count: int, hop: int, left: int) -> Tensor:
    """Windowed frames `(..., count, size)` of audio `(..., samples)`, reflected at both ends; they begin at -left."""
    audio, window = audio.contiguous(), window.contiguous()
    frames = audio.new_empty(*audio.shape[:-1], count, len(window))
    samples = audio.shape[-1]
    sizes = (audio.numel() // samples, samples, count, len(window), hop, left, torch.get_num_threads())
    loaded_kernels().partita_frames(audio.data_ptr(), window.data_ptr(), frames.data_ptr(), *sizes)
    return frames


def add_frames(frames: Tensor, ends: Tensor, window: Tensor, *, samples: int, hop: int, left: int) -> Tensor:
    """Half the transpose of `make_frames`; `ends` `(..., count, 2)` are a constant and an alternating number to add."""
    frames, ends, window = frames.contiguous(), ends.contiguous(), window.contiguous()
    audio = frames.new_empty(*frames.shape[:-2], samples)
    count, size = frames.shape[-2:]
    sizes = (audio.numel() // samples, samples, count, size, hop, left, torch.get_num_threads())
    loaded_kernels().partita_add_frames(*(x.data_ptr() for x in (frames, ends, window, audio)), *sizes)
    return audio


def magnitudes(spectrum: Tensor) -> Tensor:
    """Root of `power(spectrum)`."""
    spectrum = spectrum.contiguous()
    result = torch.empty(spectrum.shape)
    loaded_kernels().partita_magnitudes(spectrum.data_ptr(), result.data_ptr(), result.numel())
    return result


def scale_spectrum(spectrum: Tensor, slope: Tensor, magnitudes: Tensor) -> Tensor:
    """`spectrum * slope / magnitudes`."""
    spectrum, slope, magnitudes = spectrum.contiguous(), slope.contiguous(), magnitudes.contiguous()
    result = torch.empty_like(spectrum)
    tensors = (spectrum, slope, magnitudes, result)
    loaded_kernels().partita_scale_spectrum(*(x.data_ptr() for x in tensors), spectrum.numel())
    return result


def view_sums(prediction: Tensor, target: Tensor, gains: Tensor, floor: float) -> Tensor:
    """Totals over frames and bins of (sqrt(p / t) - 1)^2 t, of t, and of |log(p / t)| clamped, `(views, 3)`, float64.

    Args:
        prediction: complex `(channels, frames, bins)`: one channel, or mid and side.
        target: same shape.
        gains: `(views, bins)` gains of the powers p and t of each view: the channel, or mid, side, left and right.
        floor: power at which logarithms are clamped.
    """
    prediction, target, gains = prediction.contiguous(), target.contiguous(), gains.contiguous()
    sums = torch.empty(len(gains), 3, dtype=torch.float64)
    sizes = (len(gains), *prediction.shape[-2:], floor)
    loaded_kernels().partita_view_sums(*(x.data_ptr() for x in (prediction, target, gains, sums)), *sizes)
    return sums


def view_slopes(prediction: Tensor, target: Tensor, gains: Tensor, factors: Tensor, floor: float) -> Tensor:
    """Gradient by the prediction, if that by the power p of a view is `a sign(log(p / t)) / p + b (1 - sqrt(t / p))`.

    Args:
        prediction: see `view_sums`.
        target: see `view_sums`.
        gains: see `view_sums`.
        factors: `(views, 2)` a and b.
        floor: see `view_sums`.
    """
    prediction, target, gains = prediction.contiguous(), target.contiguous(), gains.contiguous()
    factors, gradient = factors.contiguous(), torch.empty_like(prediction)
    sizes = (len(gains), *prediction.shape[-2:], floor)
    loaded_kernels().partita_view_slopes(
        *(x.data_ptr() for x in (prediction, target, gains, factors, gradient)), *sizes
    )
    return gradient
