"""Multi-resolution STFT loss on sum, difference, left and right."""

from collections.abc import Sequence

import torch
from partita_blocks import STFT, a_weighting, power
from partita_blocks.spectral import TINY
from partita_core import Constant, Loss, PartitaError, config_of, register, upcast
from partita_core.ranges import NonNegative, Positive, Samples
from torch import Tensor, nn

from .spectral import SpectralScale, check_pair, spectral_distance

# Spectral convergence is relative to the target's magnitude in the same view, but to no less than this share of that
# in the loudest: else the difference channel of nearly monophonic stereo outweighs all that can be heard.
QUIETEST_VIEW = 1e-2
# Nor to less than the magnitude of white noise at this RMS, -50 dB of full scale: a target quieter than that is next
# to silence, which nothing can be relative to.
QUIETEST_RMS = 10 ** (-50 / 20)
# Equal signals have no gap to divide by.
SMALLEST_GAP = 1e-12


@register(
    "loss/multi_resolution_stft", example={"n_ffts": (128, 64, 32), "win_lengths": (127, 61, 31), "hops": (31, 17, 11)}
)
class MultiResolutionSTFT(Loss):
    """Spectral convergence + L1 of log magnitudes, averaged over resolutions, summed over views of a stereo signal.

    For each view, with magnitudes P of the prediction and T of the target (Yamamoto et al., 2020, arXiv 1910.11480):
    `||P - T|| / ||T|| + mean |log P - log T|`, the norms over the frames and bins of one item. The views of two
    channels, which are left and right, are L + R, L - R, L and R (Steinmetz et al., 2020, arXiv 2010.10291); they come
    from one transform of mid and side. One channel is its own view.

    Spectral convergence is `||P - T|| / max(||T||, 0.01 ||T'||, Q)`, with T' the loudest view and Q the norm of white
    noise at -50 dB of full scale in the same view: `Q^2 = 10^(-50/10) * frames * sum(window^2) * sum(gains^2)`. So the
    distance to a silent target is proportional to the prediction, `||P|| / Q`, about 30 for noise at -20 dB. (auraloss
    divides by the norm of the whole batch, where the items' distances would depend on their neighbors.)

    Where the prediction lies below `floor` and the target above, the gradient is that of a logarithm continued
    linearly in the power: bounded by 1 / floor a bin, and smooth. It is finite at digital silence, and at a prediction
    of zero it is not zero. It can be taken once, and not by the target.

    The default hops are primes above 7: coprime with each other, with GenAE's hops 3360 and 1200 and with every stage
    of its decoder, so that no periodic artifact hides between the frames of all.

    Args:
        sample_rate: samples per second.
        channels: 1, or 2 for left and right.
        n_ffts: lengths of the Fourier transforms, one per resolution.
        win_lengths: lengths of their windows.
        hops: samples from frame to frame.
        view_weights: of the sum, the difference, the left and the right channel; one channel alone has weight 1.
        a_weighted: whether magnitudes are A-weighted.
        floor: magnitude below which logarithms do not go.

    Raises:
        PartitaError: the lists differ in length, or the channels are neither one nor two.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 1,
        *,
        n_ffts: tuple[Samples, ...] = (2048, 1024, 512, 256, 128, 64, 32),
        win_lengths: tuple[Samples, ...] = (2039, 1021, 509, 251, 127, 61, 31),
        hops: tuple[Samples, ...] = (509, 257, 127, 61, 31, 17, 11),
        view_weights: tuple[NonNegative, NonNegative, NonNegative, NonNegative] = (1.0, 1.0, 0.5, 0.5),
        a_weighted: bool = True,
        floor: Positive = 1e-4,
    ) -> None:
        super().__init__()
        if not len(n_ffts) == len(win_lengths) == len(hops) > 0:
            raise PartitaError(
                f"{len(n_ffts)} FFTs, {len(win_lengths)} windows and {len(hops)} hops; need as many of each"
            )
        if channels not in (1, 2):
            raise PartitaError(f"the STFT loss takes 1 or 2 channels, not {channels}")
        self.channels = channels
        self.scales = nn.ModuleList()
        for n_fft, win_length, hop in zip(n_ffts, win_lengths, hops):
            stft = STFT(n_fft=n_fft, win_length=win_length, hop=hop, padding="center", nyquist=True)
            frequencies = torch.arange(stft.bins, dtype=torch.float64, device="cpu") * sample_rate / n_fft
            gains = a_weighting(frequencies) if a_weighted else torch.ones_like(frequencies)
            views = view_weights if channels == 2 else (1.0,)
            weights = torch.tensor(views, dtype=torch.float64, device="cpu") / len(n_ffts)
            self.scales.append(_ViewScale(stft=stft, gains=gains, weights=weights, floor=floor))

    def forward(self, prediction: Tensor, target: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The distance of each item, `(batch,)`, at least float32.

        Args:
            prediction: `(batch, channels, samples)`.
            target: as much.
            lengths: `(batch,)`; frames that see a sample from there on do not count.

        Raises:
            PartitaError: the shapes differ, or have other channels than the loss was built for.
        """
        prediction, target, lengths = check_pair(prediction, target, lengths)
        if prediction.shape[1] != self.channels:
            raise PartitaError(f"this loss was built for {self.channels} channels, the audio has {prediction.shape[1]}")
        if self.channels == 2:
            # In float32 only a difference taken in time is exactly zero for two equal channels.
            prediction, target = mid_and_side(upcast(prediction)), mid_and_side(upcast(target))
        return spectral_distance(list(self.scales), prediction, target, lengths)  # pyright: ignore


MultiResolutionSTFTConfig = config_of(MultiResolutionSTFT)


def mid_and_side(audio: Tensor) -> Tensor:
    """`(batch, 2, samples)` of left and right as (L + R) / 2 and (L - R) / 2."""
    left, right = audio.unbind(1)
    return torch.stack([left + right, left - right], dim=1) / 2


class _ViewScale(SpectralScale):
    """One resolution: all views of mid and side, or of one channel."""

    def __init__(self, *, stft: STFT, gains: Tensor, weights: Tensor, floor: float) -> None:
        super().__init__()
        self.stft, self.floor = stft, floor
        # The sum is twice the mid channel. Gains are on power, (views, 1, bins); weights (views, 1, 1).
        scale = torch.tensor([2.0, 2.0, 1.0, 1.0][: len(weights)] if len(weights) > 1 else [1.0], device="cpu")
        gains = (scale.view(-1, 1, 1) * gains).square()
        quietest = (gains.sum(-1, keepdim=True) * stft.window(gains).square().sum()).sqrt() * QUIETEST_RMS
        self.gains, self.weights = Constant(gains), Constant(weights.view(-1, 1, 1))
        self.quietest = Constant(quietest)  # norm of one frame, (views, 1, 1)

    def compare(
        self, prediction: Tensor, target: Tensor, frames: Tensor, need_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        gains, weights, quietest = (x.like(prediction.real) for x in (self.gains, self.weights, self.quietest))
        p, t = (_view_powers(x).mul_(gains).add_(TINY) for x in (prediction, target))
        count = (frames * self.stft.bins).clamp_min(1).to(p.dtype).view(-1, 1, 1, 1)
        # One root and one logarithm for both signals: of their quotient.
        quotient = (p / t).sqrt_()
        excess = quotient - 1
        gap = _total(excess.square().mul_(t)).sqrt()
        loudness = _total(t).sqrt()
        quietest = quietest * frames.clamp_min(1).to(p.dtype).sqrt().view(-1, 1, 1, 1)
        ground = loudness.maximum(QUIETEST_VIEW * loudness.amax(1, keepdim=True)).maximum(quietest)
        p.clamp_min_(self.floor**2)
        ratio = (p / t.clamp_min_(self.floor**2)).log_()  # twice the difference of the log magnitudes
        distance = gap / ground + _total(ratio.abs()) / (2 * count)
        value = (distance * weights).sum((1, 2, 3))
        if not need_gradient:
            return value, None
        slope = ratio.sgn_().div_(p).mul_(weights / count)
        slope += excess.div_(quotient).mul_(weights / (ground * gap.clamp_min(SMALLEST_GAP)))
        slope *= gains
        return value, _views_adjoint(slope, prediction)


def _total(x: Tensor) -> Tensor:
    return x.sum((-2, -1), keepdim=True)


def _view_powers(spectra: Tensor) -> Tensor:
    """The powers `(batch, views, ...)` of mid, side, left and right, from mid and side; of one channel, its own."""
    if spectra.shape[1] == 1:
        return power(spectra)
    mid, side = spectra.unbind(1)
    return power(torch.stack([mid, side, mid + side, mid - side], dim=1))


def _views_adjoint(slope: Tensor, spectra: Tensor) -> Tensor:
    """The gradient by `spectra` where that by each view is `slope` times the view itself."""
    if spectra.shape[1] == 1:
        return slope * spectra
    mid, side = spectra.unbind(1)
    of_mid, of_side, left, right = slope.unbind(1)
    common, crossed = left + right, left - right
    by_mid = (of_mid + common) * mid + crossed * side
    return torch.stack([by_mid, (of_side + common) * side + crossed * mid], dim=1)
