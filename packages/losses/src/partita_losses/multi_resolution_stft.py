"""Multi-resolution STFT loss on sum, difference, left and right."""

from collections.abc import Sequence

import torch
from partita_blocks import STFT, a_weighting, power
from partita_blocks.native import _spectra_cpu
from partita_blocks.spectral import TINY
from partita_core import Constant, PartitaError, config_of, register, upcast
from partita_core.ranges import Count, Positive, Samples
from torch import Tensor

from .spectral import MIN_RMS, SpectralLoss, SpectralScale, check_pair, mid_and_side

# Spectral convergence is relative to the target's magnitude in the same view, or to this fraction of the loudest view's
# if that is larger: otherwise the difference channel of nearly monophonic stereo would dominate.
MIN_VIEW = 1e-2
# Avoids a division by zero in the gradient if the signals are equal.
MIN_GAP = 1e-12
# Sum, difference, left and right.
VIEW_WEIGHTS = (1.0, 1.0, 0.5, 0.5)


@register(
    "loss/multi_resolution_stft", example={"n_ffts": (128, 64, 32), "win_lengths": (127, 61, 31), "hops": (31, 17, 11)}
)
class MultiResolutionSTFT(SpectralLoss):
    """Spectral convergence + L1 of log magnitudes, averaged over resolutions, summed over views of a stereo signal.

    For each view, with magnitudes P of the prediction and T of the target (Yamamoto et al., 2020, arXiv 1910.11480):
    `||P - T|| / ||T|| + mean |log P - log T|`, with norms over the frames and bins of one item. The views of left and
    right are L + R and L - R with weight 1, and L and R with weight 1/2 (Steinmetz et al., 2020, arXiv 2010.10291);
    all of them are computed from one transform of mid and side. A single channel is one view with weight 1.

    Spectral convergence is `||P - T|| / max(||T||, 0.01 ||T'||, Q)`, with T' the loudest view and Q the norm of white
    noise at -50 dB of full scale in the same view: `Q^2 = 10^(-50/10) * frames * sum(window^2) * sum(gains^2)`. The
    distance to a silent target is thus proportional to the prediction: `||P|| / Q`, about 30 for noise at -20 dB.
    (auraloss divides by the norm of the entire batch, so that its distances depend on the other items.)

    If only the prediction is below `floor`, the gradient is that of a logarithm extended linearly in the power: smooth,
    and at most 1 / floor per bin. It is finite at digital silence, and not zero at a prediction of zero. There are no
    second derivatives, and no gradient with respect to the target.

    The default hops are primes above 7: coprime with each other, with GenAE's hops 3360 and 1200 and with every stage
    of its decoder, so that some resolution detects any periodic artifact.

    Args:
        sample_rate: samples per second.
        channels: channels of the audio: 1, or 2 for left and right.
        n_ffts: lengths of the Fourier transforms, one per resolution.
        win_lengths: lengths of the windows, one per resolution.
        hops: samples from frame to frame, one per resolution.
        a_weighted: apply A-weighting to the magnitudes.
        floor: magnitude at which logarithms are clamped.
        resolutions_per_step: number of resolutions drawn at random per call in training; see `SpectralLoss`.

    Raises:
        PartitaError: `n_ffts`, `win_lengths` and `hops` differ in length or are empty, `channels` is not 1 or 2, or
            there are fewer resolutions than `resolutions_per_step`.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        *,
        n_ffts: tuple[Samples, ...] = (2048, 1024, 512, 256, 128, 64, 32),
        win_lengths: tuple[Samples, ...] = (2039, 1021, 509, 251, 127, 61, 31),
        hops: tuple[Samples, ...] = (509, 257, 127, 61, 31, 17, 11),
        a_weighted: bool = True,
        floor: Positive = 1e-4,
        resolutions_per_step: Count | None = None,
    ) -> None:
        if not len(n_ffts) == len(win_lengths) == len(hops) > 0:
            raise PartitaError(
                f"n_ffts has {len(n_ffts)} values, win_lengths {len(win_lengths)} and hops {len(hops)}; "
                "give one of each per resolution"
            )
        if channels not in (1, 2):
            raise PartitaError(f"channels is {channels}; MultiResolutionSTFT takes 1 or 2")
        scales = []
        for n_fft, win_length, hop in zip(n_ffts, win_lengths, hops):
            stft = STFT(n_fft=n_fft, win_length=win_length, hop=hop, padding="center", nyquist=True)
            frequencies = torch.arange(stft.bins, dtype=torch.float64, device="cpu") * sample_rate / n_fft
            gains = a_weighting(frequencies) if a_weighted else torch.ones_like(frequencies)
            views = VIEW_WEIGHTS if channels == 2 else (1.0,)
            weights = torch.tensor(views, dtype=torch.float64, device="cpu") / len(n_ffts)
            scales.append(_ViewScale(stft=stft, gains=gains, weights=weights, floor=floor))
        super().__init__(scales, resolutions_per_step)
        self.channels = channels

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Distance of each item, `(batch,)`, at least float32.

        Args:
            prediction: `(batch, channels, samples)`.
            target: same shape as `prediction`.
            lengths: `(batch,)` samples per item that are not padding; frames that overlap padding are excluded. None
                for all.

        Raises:
            PartitaError: the shapes differ, or do not have the number of channels that the loss was built for.
        """
        prediction, target, lengths = check_pair(prediction, target, lengths)
        if prediction.shape[1] != self.channels:
            raise PartitaError(
                f"the audio has {prediction.shape[1]} channels, the loss {self.channels}; "
                f"build it with channels={prediction.shape[1]}"
            )
        if self.channels == 2:
            # Equal channels have a difference of exactly zero in time, but not after a transform in float32.
            prediction, target = mid_and_side(upcast(prediction)), mid_and_side(upcast(target))
        return self.distance(prediction, target, lengths)


MultiResolutionSTFTConfig = config_of(MultiResolutionSTFT)


class _ViewScale(SpectralScale):
    """One resolution: all views of mid and side, or a single channel."""

    def __init__(self, *, stft: STFT, gains: Tensor, weights: Tensor, floor: float) -> None:
        super().__init__()
        self.stft, self.floor = stft, floor
        # The sum is twice the mid channel. Gains apply to power, (views, 1, bins); weights are (views, 1, 1).
        scale = torch.tensor([2.0, 2.0, 1.0, 1.0][: len(weights)] if len(weights) > 1 else [1.0], device="cpu")
        gains = (scale.view(-1, 1, 1) * gains).square()
        min_norm = (gains.sum(-1, keepdim=True) * stft.window(gains).square().sum()).sqrt() * MIN_RMS
        self.gains, self.weights = Constant(gains), Constant(weights.view(-1, 1, 1))
        self.min_norm = Constant(min_norm)  # of one frame, (views, 1, 1)

    def compare(
        self, prediction: Tensor, target: Tensor, frames: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        if _spectra_cpu.serves_spectra(prediction, target):
            items = zip(prediction, target, frames.tolist())
            values, slopes = zip(*(self._compare_item(*item, need_gradient) for item in items))
            return torch.stack(values), torch.stack(slopes) if need_gradient else None
        gains, weights, min_norm = (x.like(prediction.real) for x in (self.gains, self.weights, self.min_norm))
        p, t = (_view_powers(x).mul_(gains).add_(TINY) for x in (prediction, target))
        count = (frames * self.stft.bins).clamp_min(1).to(p.dtype).view(-1, 1, 1, 1)
        # One root and one logarithm of the quotient serve both signals.
        quotient = (p / t).sqrt_()
        excess = quotient - 1
        gap = _total(excess.square().mul_(t)).sqrt()
        norm = _total(t).sqrt()
        min_norm = min_norm * frames.clamp_min(1).to(p.dtype).sqrt().view(-1, 1, 1, 1)
        norm = norm.maximum(MIN_VIEW * norm.amax(1, keepdim=True)).maximum(min_norm)
        p.clamp_min_(self.floor**2)
        ratio = (p / t.clamp_min_(self.floor**2)).log_()  # twice the difference of the log magnitudes
        distance = gap / norm + _total(ratio.abs()) / (2 * count)
        value = (distance * weights).sum((1, 2, 3))
        if not need_gradient:
            return value, None
        slope = ratio.sgn_().div_(p).mul_(weights / count)
        slope += excess.div_(quotient).mul_(weights / (norm * gap.clamp_min(MIN_GAP)))
        slope *= gains
        return value, _views_adjoint(slope, prediction)

    def _compare_item(
        self, prediction: Tensor, target: Tensor, frames: int, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`compare` of one item by kernels."""
        gains = self.gains.like(prediction.real).squeeze(1)
        weights, min_norm = (x.like(gains.double()).flatten() for x in (self.weights, self.min_norm))
        count, floor = max(frames * self.stft.bins, 1), self.floor**2
        square, energy, logs = _spectra_cpu.view_sums(prediction, target, gains, floor).unbind(1)
        gap, norm = square.sqrt(), energy.sqrt()
        norm = norm.maximum(MIN_VIEW * norm.max()).maximum(min_norm * max(frames, 1) ** 0.5)
        value = ((gap / norm + logs / (2 * count)) * weights).sum().to(gains.dtype)
        if not need_gradient:
            return value, None
        factors = torch.stack([weights / count, weights / (norm * gap.clamp_min(MIN_GAP))], dim=1).to(gains.dtype)
        return value, _spectra_cpu.view_slopes(prediction, target, gains, factors, floor)


def _total(x: Tensor) -> Tensor:
    return x.sum((-2, -1), keepdim=True)


def _view_powers(spectra: Tensor) -> Tensor:
    """Powers `(batch, views, ...)` of mid, side, left and right, or of a single channel."""
    if spectra.shape[1] == 1:
        return power(spectra)
    mid, side = spectra.unbind(1)
    return power(torch.stack([mid, side, mid + side, mid - side], dim=1))


def _views_adjoint(slope: Tensor, spectra: Tensor) -> Tensor:
    """Gradient with respect to `spectra`, if that with respect to each view is `slope` times the view."""
    if spectra.shape[1] == 1:
        return slope * spectra
    mid, side = spectra.unbind(1)
    of_mid, of_side, left, right = slope.unbind(1)
    common, crossed = left + right, left - right
    by_mid = (of_mid + common) * mid + crossed * side
    return torch.stack([by_mid, (of_side + common) * side + crossed * mid], dim=1)
