"""Multi-resolution loss on spectra with companded magnitudes, which depends on phase."""

from collections.abc import Sequence
from typing import Annotated

import torch
from partita_blocks import STFT, power
from partita_core import PartitaError, config_of, register, upcast
from partita_core.ranges import Count, NonNegative, Positive, Range, Samples
from torch import Tensor
from torch.nn import functional as F

from .spectral import MIN_RMS, SpectralLoss, SpectralScale, check_pair, mid_and_side

Exponent = Annotated[float, Range(0, 1, open_low=True)]


@register("loss/companded_stft", example={"n_ffts": (128, 64, 32)})
class CompandedSTFTLoss(SpectralLoss):
    """Squared distance of spectra with companded magnitudes, with and without phase, averaged over resolutions.

    With spectra Y of the prediction and X of the target and an exponent c, each resolution contributes per item

        complex_weight * sum |Y |Y|^(c-1) - X |X|^(c-1)|^2 / sum |X|^(2c)
        + magnitude_weight * sum (|Y|^c - |X|^c)^2 / sum |X|^(2c)

    with sums over channels, frames and bins; stereo is compared as mid and side. A prediction of silence has a distance
    of `complex_weight + magnitude_weight`. Companding (Ephrat et al., 2018, arXiv 1804.03619; with both terms, Braun
    and Tashev, 2021, arXiv 2009.12286) gives quiet bins a say, and the complex term compares phases, on which distances
    of magnitudes do not depend.

    Magnitudes are `sqrt(|.|^2 + m^2)`, with m the RMS magnitude of white noise at an RMS of `floor` in the same
    resolution, so that the gradient is finite at digital silence; it is not zero at a prediction of zero. The
    denominator is at least that of one channel whose bins all have the RMS magnitude of white noise at -50 dB of full
    scale. There are no second derivatives,
    and no gradient with respect to the target.

    In training mode, the frames of a call start at a random position within a hop, drawn from torch's global generator
    on the CPU, so that no part of the signal is always at the edge of a window.

    Args:
        n_ffts: lengths of the Fourier transforms and their windows, one per resolution; the hop is a quarter.
        exponent: exponent of the magnitudes; 1 for none.
        complex_weight: weight of the term with phase.
        magnitude_weight: weight of the term of magnitudes.
        floor: RMS of the white noise that regularizes magnitudes.
        random_offset: start the frames at a random position in training mode.
        resolutions_per_step: number of resolutions drawn at random per call in training; see `SpectralLoss`.

    Raises:
        PartitaError: there are no resolutions, a length is below 4, both weights are zero, or there are fewer
            resolutions than `resolutions_per_step`.
    """

    def __init__(
        self,
        *,
        n_ffts: tuple[Samples, ...] = (1024, 512, 256),
        exponent: Exponent = 0.5,
        complex_weight: NonNegative = 0.5,
        magnitude_weight: NonNegative = 1.0,
        floor: Positive = 1e-4,
        random_offset: bool = True,
        resolutions_per_step: Count | None = None,
    ) -> None:
        if not n_ffts or min(n_ffts) < 4:
            raise PartitaError(f"n_ffts is {n_ffts}; give at least one length, each at least 4 samples")
        if complex_weight + magnitude_weight == 0:
            raise PartitaError("complex_weight and magnitude_weight are 0; give at least one a positive weight")
        weights = (complex_weight / len(n_ffts), magnitude_weight / len(n_ffts))
        scales = []
        for n_fft in n_ffts:
            stft = STFT(n_fft=n_fft, win_length=n_fft, hop=n_fft // 4, padding="center", nyquist=True)
            scales.append(_CompandedScale(stft=stft, exponent=exponent, weights=weights, floor=floor))
        super().__init__(scales, resolutions_per_step)
        self.hop = max(n_ffts) // 4 if random_offset else 1

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32.

        Args:
            prediction: `(batch, channels, samples)`; two channels are left and right.
            target: same shape as `prediction`.
            lengths: `(batch,)` samples per item that are not padding; frames that overlap padding are excluded. None
                for all.

        Raises:
            PartitaError: the shapes differ.
        """
        prediction, target, lengths = check_pair(prediction, target, lengths)
        prediction, target = upcast(prediction), upcast(target)
        if prediction.shape[1] == 2:
            prediction, target = mid_and_side(prediction), mid_and_side(target)
        if self.training and self.hop > 1:
            offset = int(torch.randint(self.hop, (), device="cpu"))
            prediction, target = F.pad(prediction, (offset, 0)), F.pad(target, (offset, 0))
            lengths = None if lengths is None else lengths + offset
        return self.distance(prediction, target, lengths)


CompandedSTFTLossConfig = config_of(CompandedSTFTLoss)


class _CompandedScale(SpectralScale):
    """One resolution: spectra of all channels with companded magnitudes."""

    def __init__(self, *, stft: STFT, exponent: float, weights: tuple[float, float], floor: float) -> None:
        super().__init__()
        self.stft, self.exponent, (self.complex_weight, self.magnitude_weight) = stft, exponent, weights
        self.tiny = stft.energy * floor**2
        self.min_mean = (stft.energy * MIN_RMS**2) ** exponent  # minimum mean of |X|^(2c)

    def compare(
        self, prediction: Tensor, target: Tensor, frames: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        c, p, t = self.exponent, power(prediction).add_(self.tiny), power(target).add_(self.tiny)
        p_gain, t_gain = p.pow((c - 1) / 2), t.pow((c - 1) / 2)
        companded = t_gain * target
        norm = power(companded).sum((1, 2, 3)).maximum(self.min_mean * self.stft.bins * frames.clamp_min(1).to(p.dtype))
        error = p_gain * prediction - companded
        root = p.sqrt()
        gap = p_gain * root - t_gain * t.sqrt_()
        value = self.complex_weight * power(error).sum((1, 2, 3)) + self.magnitude_weight * gap.square().sum((1, 2, 3))
        value = value / norm
        if not need_gradient:
            return value, None
        # d(Y m^(c-1)) = m^(c-1) dY + (c-1) m^(c-3) Re(Y* dY) Y and d(m^c) = c m^(c-2) Re(Y* dY), with m the magnitude.
        along = (error.real * prediction.real).addcmul_(error.imag, prediction.imag)
        slope = along.div_(p).mul_((c - 1) * self.complex_weight).add_(gap.div_(root), alpha=c * self.magnitude_weight)
        gradient = slope * prediction
        gradient += self.complex_weight * error
        return value, gradient.mul_(p_gain * (2 / norm).view(-1, 1, 1, 1))
