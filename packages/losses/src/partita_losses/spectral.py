"""Value and gradient of a comparison of spectra in one pass, shared by the spectral losses.

Autograd would store a dozen tensors per resolution and read memory twice per operation. Here the gradient with respect
to the prediction is computed together with the value, item by item while the spectra are in the cache, and is the only
tensor that is stored: several times faster on a CPU, with a fraction of the memory on every device.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from partita_blocks import STFT
from partita_core import Loss, PartitaError, as_integers, as_tensor, length_mask, short_repr, upcast
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# A magnitude has no gradient at zero. Samples of the prediction that are exactly zero are replaced by this fraction of
# the target, inaudible and below the resolution of float32, so that a silent prediction has a gradient.
TRACE = 1e-10
# RMS of white noise at -50 dB of full scale: distances relative to a target below it are meaningless.
MIN_RMS = 10 ** (-50 / 20)


class SpectralScale(nn.Module, ABC):
    """One resolution of a spectral loss: a transform and a comparison of its spectra.

    Attributes:
        stft: transform of both signals.
    """

    stft: STFT

    @abstractmethod
    def compare(
        self, prediction: Tensor, target: Tensor, frames: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Compare two spectra.

        Args:
            prediction: complex `(batch, channels, frames, bins)`.
            target: same shape; frames of padding are zero in both.
            frames: `(batch,)` number of frames per item without padding.
            need_gradient: compute the gradient.

        Returns:
            The distance of each item, `(batch,)`, and its gradient with respect to the prediction, in the same shape:
            derivative by the real part + i * derivative by the imaginary part; None without `need_gradient`.
        """


class SpectralLoss(Loss):
    """Sum of the distances of several scales; a call in training mode may use a random subset of them.

    A subset is drawn uniformly, without replacement, from torch's global generator on the CPU, and its sum is scaled by
    the inverse of its share of the scales: values and gradients have the same expectation as with all scales. Eval
    mode always uses all of them.

    Args:
        scales: resolutions of the loss.
        resolutions_per_step: number of scales per call in training mode; None for all.

    Raises:
        PartitaError: there are fewer scales than `resolutions_per_step`.
    """

    def __init__(self, scales: Iterable[SpectralScale], resolutions_per_step: int | None) -> None:
        super().__init__()
        self.scales, self.resolutions_per_step = nn.ModuleList(scales), resolutions_per_step
        if resolutions_per_step is not None and resolutions_per_step > len(self.scales):
            raise PartitaError(
                f"resolutions_per_step is {resolutions_per_step}, but the loss has {len(self.scales)} resolutions; "
                "give at most as many, or None for all"
            )

    def distance(self, prediction: Tensor, target: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        """Sum of the distances of the scales that this call uses; see `spectral_distance`."""
        scales: list[Any] = list(self.scales)
        number = len(scales) if self.resolutions_per_step is None or not self.training else self.resolutions_per_step
        if number == len(scales):
            return spectral_distance(scales, prediction, target, lengths)
        drawn = torch.randperm(len(scales), device="cpu")[:number].tolist()
        value = spectral_distance([scales[i] for i in sorted(drawn)], prediction, target, lengths)
        return value * (len(scales) / number)


def spectral_distance(
    scales: Sequence[SpectralScale], prediction: Tensor, target: Tensor, lengths: Tensor | Sequence[int] | None
) -> Tensor:
    """Sum of the distances of all scales, differentiable once with respect to the prediction.

    Args:
        scales: resolutions of the loss.
        prediction: `(batch, channels, samples)`.
        target: same shape, without gradient.
        lengths: `(batch,)` samples per item that are not padding; frames that overlap padding are excluded. None for
            all.

    Returns:
        `(batch,)`, at least float32.

    Raises:
        PartitaError: the shapes differ, or the target requires a gradient.
    """
    prediction, target, lengths = check_pair(prediction, target, lengths)
    if target.requires_grad and torch.is_grad_enabled():
        raise PartitaError("the target requires a gradient, which spectral losses do not compute; detach the target")
    need_gradient = prediction.requires_grad and torch.is_grad_enabled()
    return _SpectralDistance.apply(upcast(prediction), upcast(target), lengths, tuple(scales), need_gradient)


def check_pair(
    prediction: Tensor, target: Tensor, lengths: Tensor | Sequence[int] | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check two signals and their lengths, and return them as tensors; lists and arrays are accepted.

    The values of lengths on an accelerator are not checked, because training would have to wait for them.

    Raises:
        PartitaError: the shapes differ, or are not `(batch, channels, samples)`, or empty; the signals are not
            floating point; `lengths` does not fit the batch, or exceeds the signals.
    """
    prediction, target = as_tensor(prediction, "prediction"), as_tensor(target, "target")
    if prediction.shape != target.shape or prediction.ndim != 3 or not prediction.numel():
        raise PartitaError(
            f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}; "
            "both must be (batch, channels, samples), equal and not empty"
        )
    if not (prediction.is_floating_point() and target.is_floating_point()):
        raise PartitaError(
            f"prediction is {prediction.dtype}, target {target.dtype}; floating-point signals are expected"
        )
    lengths = None if lengths is None else as_integers(lengths, "lengths")
    if lengths is not None and lengths.shape != prediction.shape[:1]:
        raise PartitaError(
            f"lengths are {tuple(lengths.shape)} for a batch of {prediction.shape[0]}; give one length per item"
        )
    samples = prediction.shape[-1]
    if lengths is not None and lengths.device.type == "cpu" and bool(((lengths < 0) | (lengths > samples)).any()):
        raise PartitaError(f"lengths are {short_repr(lengths.tolist())}; they must be between 0 and {samples} samples")
    return prediction, target, lengths


class _SpectralDistance(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        prediction: Tensor,
        target: Tensor,
        lengths: Tensor | None,
        scales: tuple[SpectralScale, ...],
        need_gradient: bool,
    ) -> Tensor:
        dtype = torch.promote_types(prediction.dtype, target.dtype)
        prediction, target = prediction.detach().to(dtype), target.detach().to(dtype)
        if lengths is not None:
            on_cpu = prediction.device.type == "cpu" and lengths.device.type == "cpu"  # an accelerator would wait
            whole = on_cpu and bool((lengths == prediction.shape[-1]).all())
            lengths = None if whole else lengths.to(prediction.device)
        value = prediction.new_zeros(prediction.shape[0])
        gradient = torch.zeros_like(prediction) if need_gradient else None
        # A GPU processes the batch at once, a CPU one item at a time, which fits its caches.
        chunk = 1 if prediction.device.type == "cpu" else len(value)
        with torch.autocast(prediction.device.type, enabled=False):
            for start in range(0, len(value), chunk):
                part = slice(start, start + chunk)
                value[part] = _compare(
                    scales,
                    prediction[part],
                    target[part],
                    None if lengths is None else lengths[part],
                    None if gradient is None else gradient[part],
                )
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0].view(-1, 1, 1) * gradient, None, None, None, None


def _compare(
    scales: tuple[SpectralScale, ...],
    prediction: Tensor,
    target: Tensor,
    lengths: Tensor | None,
    gradient: Tensor | None,
) -> Tensor:
    """Distance of some items, `(batch,)`; adds the gradient to `gradient` unless that is None."""
    batch, _, samples = prediction.shape
    value = prediction.new_zeros(batch)
    both = torch.cat([torch.where(prediction == 0, TRACE * target, prediction), target])
    for scale in scales:
        spectra = scale.stft(both).transpose(-1, -2)
        frames = torch.full((batch,), spectra.shape[-2], device=spectra.device)
        if lengths is not None:
            frames = unpadded_frames(scale.stft, lengths, samples, spectra.shape[-2])
            counts = length_mask(frames, spectra.shape[-2])
            spectra = spectra * counts.repeat(2, 1)[:, None, :, None].to(prediction.dtype)
        distance, derivative = scale.compare(*spectra.chunk(2), frames, gradient is not None)
        value += distance
        if gradient is not None and derivative is not None:
            gradient += scale.stft.adjoint(derivative.transpose(-1, -2), samples)
    return value


def mid_and_side(audio: Tensor) -> Tensor:
    """Convert `(batch, 2, samples)` from left and right to (L + R) / 2 and (L - R) / 2."""
    left, right = audio.unbind(1)
    return torch.stack([left + right, left - right], dim=1) / 2


def unpadded_frames(stft: STFT, lengths: Tensor, samples: int, frames: int) -> Tensor:
    """Number of frames per item that do not overlap the padding, which begins at `lengths`.

    An item without padding keeps all `frames` frames, including those that overlap the reflected end.
    """
    inside = (lengths + stft.left - stft.n_fft).div(stft.hop, rounding_mode="floor") + 1
    return torch.where(lengths < samples, inside.clamp(0, frames), frames)
