"""What the spectral losses share: the value and the gradient of a comparison of spectra, in one pass.

Autograd would keep a dozen tensors of every resolution and walk through memory for each operation twice. Here the
gradient by the prediction is found together with the value, item by item while its spectra are in the cache, and is
all that is kept: several times faster on a CPU, and a fraction of the memory everywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from partita_blocks import STFT
from partita_core import PartitaError, as_integers, as_tensor, length_mask, short_repr, upcast
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# A magnitude has no gradient at zero. Samples that are exactly zero take this share of the target's, inaudible and
# below float32's resolution, so that a silent prediction is drawn to the target's phase.
TRACE = 1e-10


class SpectralScale(nn.Module, ABC):
    """One resolution of a spectral loss: a transform, and how its spectra are compared.

    Attributes:
        stft: the transform.
    """

    stft: STFT

    @abstractmethod
    def compare(
        self, prediction: Tensor, target: Tensor, frames: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Compares two spectra.

        Args:
            prediction: complex `(batch, channels, frames, bins)`.
            target: as much. Frames that do not count are zero in both.
            frames: `(batch,)`, frames that count.
            need_gradient: whether the gradient is wanted.

        Returns:
            The distance of each item `(batch,)`; and its gradient by the prediction, in its shape, as derivative by
            the real part + i * derivative by the imaginary part, or None.
        """


def spectral_distance(
    scales: Sequence[SpectralScale], prediction: Tensor, target: Tensor, lengths: Tensor | Sequence[int] | None
) -> Tensor:
    """The sum over `scales` of their distances, differentiable once by the prediction.

    Args:
        scales: the resolutions.
        prediction: `(batch, channels, samples)`.
        target: as much; a constant.
        lengths: `(batch,)`, the samples of each item that are no padding; frames that see padding do not count.

    Returns:
        `(batch,)`, at least float32.

    Raises:
        PartitaError: the shapes differ, or the target requires a gradient.
    """
    prediction, target, lengths = check_pair(prediction, target, lengths)
    if target.requires_grad and torch.is_grad_enabled():
        raise PartitaError("a spectral loss has no gradient by its target, and the target requires one; detach it")
    need_gradient = prediction.requires_grad and torch.is_grad_enabled()
    return _SpectralDistance.apply(upcast(prediction), upcast(target), lengths, tuple(scales), need_gradient)


def check_pair(
    prediction: Tensor, target: Tensor, lengths: Tensor | Sequence[int] | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Two signals that can be compared, and their lengths, as tensors; lists and arrays are taken as well.

    Lengths on an accelerator are not read, since training would wait for them.

    Raises:
        PartitaError: the signals are of different shapes, empty, not floating or not `(batch, channels, samples)`, or
            the lengths are those of another batch, or longer than the signals.
    """
    prediction, target = as_tensor(prediction, "prediction"), as_tensor(target, "target")
    if prediction.shape != target.shape or prediction.ndim != 3 or not prediction.numel():
        raise PartitaError(
            f"prediction is {tuple(prediction.shape)}, target {tuple(target.shape)}; "
            "both must be the same (batch, channels, samples), and not empty"
        )
    if not (prediction.is_floating_point() and target.is_floating_point()):
        raise PartitaError(f"prediction is {prediction.dtype}, target {target.dtype}; floating signals are expected")
    lengths = None if lengths is None else as_integers(lengths, "lengths")
    if lengths is not None and lengths.shape != prediction.shape[:1]:
        raise PartitaError(f"lengths are {tuple(lengths.shape)} for a batch of {prediction.shape[0]}")
    samples = prediction.shape[-1]
    if lengths is not None and lengths.device.type == "cpu" and bool(((lengths < 0) | (lengths > samples)).any()):
        raise PartitaError(f"lengths are {short_repr(lengths.tolist())}; the signals have {samples} samples")
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
        lengths = None if lengths is None else lengths.to(prediction.device)
        value = prediction.new_zeros(prediction.shape[0])
        gradient = torch.zeros_like(prediction) if need_gradient else None
        # A GPU wants the batch at once; a CPU one item, which its caches hold.
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
    """The distance of some items, `(batch,)`; the gradient is added to `gradient` where there is one."""
    batch, _, samples = prediction.shape
    value = prediction.new_zeros(batch)
    both = torch.cat([torch.where(prediction == 0, TRACE * target, prediction), target])
    for scale in scales:
        spectra = scale.stft(both).transpose(-1, -2)
        frames = torch.full((batch,), spectra.shape[-2], device=spectra.device)
        if lengths is not None:
            frames = frames_that_count(scale.stft, lengths, samples, spectra.shape[-2])
            counts = length_mask(frames, spectra.shape[-2])
            spectra = spectra * counts.repeat(2, 1)[:, None, :, None].to(prediction.dtype)
        distance, derivative = scale.compare(*spectra.chunk(2), frames, gradient is not None)
        value += distance
        if gradient is not None and derivative is not None:
            gradient += scale.stft.adjoint(derivative.transpose(-1, -2), samples)
    return value


def frames_that_count(stft: STFT, lengths: Tensor, samples: int, frames: int) -> Tensor:
    """Of `frames` frames of `samples` samples, how many see nothing of the padding that begins at `lengths`.

    An item without padding keeps all of them, those that reach into the reflected end too.
    """
    whole = (lengths + stft.left - stft.n_fft).div(stft.hop, rounding_mode="floor") + 1
    return torch.where(lengths < samples, whole.clamp(0, frames), frames)
