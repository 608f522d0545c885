"""Loudness loss: audible differences of loudness in critical bands."""

import math
from collections.abc import Sequence

import torch
from partita_blocks import STFT, power
from partita_core import Constant, Loss, PartitaError, config_of, length_mask, register
from partita_core.ranges import NonNegative, Positive, Proportion
from torch import Tensor

from .spectral import TRACE, check_pair, unpadded_frames

# Half a critical band, and the lowest edge in Hz.
_BAND, _LOWEST = 0.5, 60.0
# Level of the active frames of the target, as a power relative to the threshold of hearing at about 1 kHz.
_LEVEL = 1e7
# Frames this far below the mean power of the target are not active.
_ACTIVE = 0.01
# Exponent of Zwicker's law.
_EXPONENT = 0.23
# Loud frames count less: exponent of their power, and the power that is added to that of quiet ones.
_FRAME_EXPONENT, _QUIET = 0.04, 1e5
# A band counts as added if the ratio of powers, of which one is offset by a barely audible power, exceeds a minimum.
_OFFSET, _RATIO_EXPONENT, _RATIOS = 50.0, 1.2, (3.0, 12.0)
_EPS = 1e-6


@register("loss/loudness")
class Loudness(Loss):
    """Difference of loudness in critical bands, without what is inaudible beside the target.

    The ideas are those of PESQ (ITU-T P.862): loudness by Zwicker's law, a dead zone in which differences are masked,
    and a higher cost of added than of missing sound. The loss is ours and simpler: bands are computed by formula for
    any sample rate, there is no alignment and no filter of a telephone, and all steps are differentiable. The signals
    are compared at one level, that of the target.

    1. Powers of Hann windows of 32 ms, summed over bands of half a Bark (7 arcsinh(f / 650 Hz)), are scaled such that
       the active frames of the target have a standard level.
    2. The loudness of a band is (P0 / 0.5)^0.23 * ((0.5 + 0.5 P / P0)^0.23 - 1), where P0 is the threshold of hearing
       (Terhardt, 1979).
    3. The disturbance is the part of the difference that exceeds `dead_zone` times the smaller loudness. A frame's is
       the root mean square over bands, that of an item over frames.
    4. The asymmetric disturbance counts bands with several times the power of the target once more, with
       `asymmetry_weight`.

    Args:
        sample_rate: samples per second.
        window: length of the windows in seconds.
        dead_zone: fraction of the smaller loudness by which two loudnesses may differ at no cost.
        asymmetry_weight: weight of the asymmetric disturbance.

    Raises:
        PartitaError: the sample rate is too low for one band.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        window: Positive = 0.032,
        dead_zone: Proportion = 0.25,
        asymmetry_weight: NonNegative = 0.3,
    ) -> None:
        super().__init__()
        if sample_rate < 4 * _LOWEST:
            raise PartitaError(f"the sample rate is {sample_rate} Hz; loudness needs at least {4 * _LOWEST:g} Hz")
        self.dead_zone, self.asymmetry_weight = dead_zone, asymmetry_weight
        n_fft = 2 * max(1, round(window * sample_rate / 2))
        self.stft = STFT(n_fft=n_fft, hop=max(1, n_fft // 2), padding="center")
        matrix, centers = _critical_bands(sample_rate, n_fft)
        self._bands, self._threshold = Constant(matrix), Constant(_hearing_threshold(centers))

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32: the mean over channels.

        Args:
            prediction: `(batch, channels, samples)`.
            target: same shape as `prediction`.
            lengths: `(batch,)` samples per item that are not padding; frames that overlap padding are excluded. None
                for all.

        Raises:
            PartitaError: the shapes differ.
        """
        prediction, target, lengths = check_pair(prediction, target, lengths)
        with torch.autocast(prediction.device.type, enabled=False):
            # Power has no gradient at zero; see TRACE.
            prediction = prediction + TRACE * target * (prediction == 0)
            predicted, wanted = self._powers(prediction), self._powers(target)
            counted = torch.ones_like(wanted[:, 0, :, 0])
            if lengths is not None:
                frames = unpadded_frames(self.stft, lengths.to(target.device), target.shape[-1], counted.shape[1])
                counted = length_mask(frames, counted.shape[1]).to(counted.dtype)
            counted = counted[:, None]
            scale = _scale(wanted, counted)
            return self._disturbance(scale * predicted, scale * wanted, counted).mean(1)

    def _powers(self, audio: Tensor) -> Tensor:
        """Powers of bands `(batch, channels, frames, bands)`."""
        powers = power(self.stft(audio)).mT
        return powers @ self._bands.like(powers)

    def _disturbance(self, predicted: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        """Disturbance of each channel `(batch, channels)`; `counted` is 1 for frames that count and 0 for others."""
        loudness, reference = self._loudness(predicted), self._loudness(wanted)
        audible = (loudness - reference).abs() - self.dead_zone * torch.minimum(loudness, reference)
        audible = audible.clamp_min(0)
        weight = ((wanted.sum(-1) + _QUIET) / _LEVEL).pow(-_FRAME_EXPONENT)
        symmetric = _mean(audible.square().mean(-1) * weight.square(), counted)
        low, high = _RATIOS
        added = ((predicted + _OFFSET) / (wanted + _OFFSET)).pow(_RATIO_EXPONENT).clamp(low, high) - low
        asymmetric = _mean((audible * added).mean(-1) * weight, counted)
        return (symmetric + _EPS).sqrt() - _EPS**0.5 + self.asymmetry_weight * asymmetric

    def _loudness(self, powers: Tensor) -> Tensor:
        threshold = self._threshold.like(powers)
        return (threshold / 0.5).pow(_EXPONENT) * ((0.5 + 0.5 * powers / threshold).pow(_EXPONENT) - 1)


LoudnessConfig = config_of(Loudness)


def _mean(x: Tensor, counted: Tensor) -> Tensor:
    """Mean over the frames that count, of `(batch, channels, frames)`."""
    return (x * counted).sum(-1) / counted.sum(-1).clamp_min(1)


def _scale(wanted: Tensor, counted: Tensor) -> Tensor:
    """Factor of each item `(batch, 1, 1, 1)` that brings the active frames of the target to the standard level."""
    level = wanted.sum(-1).mean(1, keepdim=True) * counted
    active = counted * (level > _ACTIVE * level.sum(-1, keepdim=True) / counted.sum(-1, keepdim=True).clamp_min(1))
    mean = (level * active).sum(-1, keepdim=True) / active.sum(-1, keepdim=True).clamp_min(1)
    return (_LEVEL / mean.clamp_min(1e-4))[..., None]


def _critical_bands(sample_rate: int, n_fft: int) -> tuple[Tensor, Tensor]:
    """Share of each bin in bands of half a Bark, `(bins, bands)`, and the centers of the bands in Hz, in float64."""
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu")
    step = sample_rate / n_fft
    first, last = (7 * math.asinh(hertz / 650) for hertz in (_LOWEST, sample_rate / 2))
    count = max(1, round((last - first) / _BAND))
    edges = torch.linspace(first, last, count + 1, dtype=torch.float64, device="cpu")
    low, high = (7 * torch.asinh((bins[:, None] + side) * step / 650) for side in (-0.5, 0.5))
    shared = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
    centers = 650 * torch.sinh((edges[:-1] + edges[1:]) / 14)
    return shared.clamp_min(0) / (high - low), centers


def _hearing_threshold(hertz: Tensor) -> Tensor:
    """Threshold of hearing as a power, by Terhardt's formula, limited to 60 dB."""
    kilohertz = hertz / 1000
    decibels = 3.64 * kilohertz**-0.8 - 6.5 * torch.exp(-0.6 * (kilohertz - 3.3) ** 2) + 1e-3 * kilohertz**4
    return 10 ** (decibels.clamp_max(60) / 10)
