"""Multi-scale mel loss."""

import math
from collections.abc import Sequence

import torch
from partita_blocks import STFT, mel_filterbank, power
from partita_blocks.native import _spectra_cpu
from partita_core import Constant, PartitaError, config_of, register
from partita_core.ranges import Count, Positive, Samples, Width
from torch import Tensor

from .spectral import SpectralLoss, SpectralScale

GROUP = 40  # bands per matrix product; few bins contribute to them


@register("loss/multi_scale_mel", example={"num_mels": (5, 20), "win_lengths": (32, 128)})
class MultiScaleMel(SpectralLoss):
    """L1 distance of log10 mel-band magnitudes: mean over channels, frames and bands, summed over scales.

    From DAC (Kumar et al., 2023, arXiv 2306.06546, section 3.5). Bands span 0 Hz to half the sample rate. If only the
    prediction is below `floor`, its gradient is that at `floor`, so that training can leave silence. There are no
    second derivatives, and no gradient with respect to the target.

    Args:
        sample_rate: samples per second.
        num_mels: number of bands, one per scale.
        win_lengths: lengths of the Fourier transforms and their windows, one per scale; the hop is a quarter.
        floor: magnitude of a band at which logarithms are clamped.
        resolutions_per_step: number of scales drawn at random per call in training; see `SpectralLoss`.

    Raises:
        PartitaError: `num_mels` and `win_lengths` differ in length, or are empty, or there are fewer scales than
            `resolutions_per_step`.
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        num_mels: tuple[Width, ...] = (5, 10, 20, 40, 80, 160, 320),
        win_lengths: tuple[Samples, ...] = (32, 64, 128, 256, 512, 1024, 2048),
        floor: Positive = 1e-5,
        resolutions_per_step: Count | None = None,
    ) -> None:
        if not len(num_mels) == len(win_lengths) > 0:
            raise PartitaError(
                f"num_mels has {len(num_mels)} values and win_lengths {len(win_lengths)}; give one of each per scale"
            )
        scales = []
        for mels, length in zip(num_mels, win_lengths):
            stft = STFT(n_fft=length, win_length=length, hop=length // 4, padding="center", nyquist=True)
            bank = mel_filterbank(sample_rate=sample_rate, n_fft=length, num_mels=mels, f_min=0, f_max=sample_rate / 2)
            scales.append(_MelScale(stft=stft, filterbank=bank, floor=floor))
        super().__init__(scales, resolutions_per_step)

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32.

        Args:
            prediction: `(batch, channels, samples)`.
            target: same shape as `prediction`.
            lengths: `(batch,)` samples per item that are not padding; frames that overlap padding are excluded. None
                for all.

        Raises:
            PartitaError: the shapes differ.
        """
        return self.distance(prediction, target, lengths)


MultiScaleMelConfig = config_of(MultiScaleMel)


class _MelScale(SpectralScale):
    """One scale; the product with the filterbank is computed per group of bands, from the bins of the group only."""

    def __init__(self, *, stft: STFT, filterbank: Tensor, floor: float) -> None:
        super().__init__()
        self.stft, self.floor, self.num_mels = stft, floor, filterbank.shape[1]
        self.bins: list[slice] = []
        self.banks: list[Constant] = []
        for bank in filterbank.split(GROUP, dim=1):
            held = bank.any(1).nonzero()
            first, last = (int(held[0]), int(held[-1])) if len(held) else (0, 0)
            self.bins.append(slice(first, last + 1))
            self.banks.append(Constant(bank[self.bins[-1]].contiguous()))

    def _banks(self, x: Tensor) -> list[tuple[slice, Tensor]]:
        return [(bins, bank.like(x)) for bins, bank in zip(self.bins, self.banks)]

    def compare(
        self, prediction: Tensor, target: Tensor, frames: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        fast = _spectra_cpu.serves_spectra(prediction, target)
        magnitudes = _spectra_cpu.magnitudes(prediction) if fast else power(prediction).sqrt_()
        wanted = _spectra_cpu.magnitudes(target) if fast else power(target).sqrt_()
        count = (frames * prediction.shape[1] * self.num_mels).clamp_min(1).to(magnitudes.dtype) * math.log(10)
        mel = self._mel(magnitudes).clamp_min_(self.floor)
        ratio = (mel / self._mel(wanted).clamp_min_(self.floor)).log_()
        value = ratio.abs().sum((1, 2, 3)) / count
        if not need_gradient:
            return value, None
        slope = ratio.sgn_().div_(mel).div_(count.view(-1, 1, 1, 1))
        slope = self._mel_adjoint(slope)
        if fast:
            return value, _spectra_cpu.scale_spectrum(prediction, slope, magnitudes)
        return value, slope.div_(magnitudes) * prediction

    def _mel(self, magnitudes: Tensor) -> Tensor:
        rows = magnitudes.flatten(0, 2)
        mel = torch.cat([rows[:, bins] @ bank for bins, bank in self._banks(rows)], dim=1)
        return mel.unflatten(0, magnitudes.shape[:3])

    def _mel_adjoint(self, slope: Tensor) -> Tensor:
        rows = slope.flatten(0, 2)
        out = rows.new_zeros(len(rows), self.stft.bins)
        for (bins, bank), part in zip(self._banks(rows), rows.split(GROUP, dim=1)):
            out[:, bins] += part @ bank.T
        return out.unflatten(0, slope.shape[:3])
