"""Errors of waveform, phase, stereo image and loudness, which distances of magnitude spectra ignore."""

import math

import torch
from partita_core import Metric, PartitaError, check_signals, config_of, register
from partita_core.ranges import Finite, Positive, Samples, Width
from torch import Tensor

from partita.evaluation.spectrograms import mel_bands, spectrum


@register("metric/si_sdr")
class SISDR(Metric):
    """Scale-invariant SDR in dB, averaged over channels (Le Roux et al. 2019, arXiv 1811.02508, equation 3).

    `10 log10(|a r|^2 / |e - a r|^2)` with `a = <e, r> / <r, r>`; the mean is not subtracted.

    A gain is free, and so is a polarity flip, which is a negative one. A shift by a sample costs much where there are
    high frequencies. Swapped channels are compared with each other.

    Where the formula is undefined: a silent estimate of a non-silent reference gets `-limit_db`. Channels that are
    silent in the reference are left out; if all are, the value is `limit_db` if the estimate is silent too and
    `-limit_db` otherwise.

    Args:
        limit_db: largest absolute value; equal signals get it exactly.
        silence_db: RMS level in dB of full scale below which a channel counts as silent.
    """

    label = "SI-SDR"
    unit = "dB"
    better = "higher"

    def __init__(self, *, limit_db: Finite = 100.0, silence_db: Finite = -100.0) -> None:
        self.limit_db = limit_db
        self.silence = 10 ** (silence_db / 10)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the ratio; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float64)
        sounding = reference.square().mean(-1) > self.silence
        if not sounding.any():
            quiet = bool((estimate.square().mean(-1) <= self.silence).all())
            return self.limit_db if quiet else -self.limit_db
        estimate, reference = estimate[sounding], reference[sounding]
        gain = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True)
        target = gain * reference
        signal, error = target.square().sum(-1), (estimate - target).square().sum(-1)
        # An exact estimate divides by 0 and gets the limit; a silent one gives 0 / 0, which is the worst value.
        ratio = (signal / error).nan_to_num(nan=0.0, posinf=torch.inf)
        return float((10 * ratio.log10()).clamp(-self.limit_db, self.limit_db).mean())


@register("metric/phase_error")
class PhaseError(Metric):
    """Phase error in radians, 0 to pi, averaged over frames, bins and channels with the reference's magnitudes.

    A phase unrelated to the reference's has an error of pi/2 on average, so bins where the estimate is silent and the
    reference is not count as pi/2. If the whole reference is silent, the error is pi/2 if the estimate is not, else 0.

    A gain is free above the floor; a polarity flip is pi, the largest error. A shift by a sample turns each phase by
    `2 pi f / sample_rate`: little at low frequencies, and pi/2 at half the highest one. Swapped channels cost pi/2
    where they are unrelated, nothing where they are equal.

    Args:
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        floor: magnitude below which a bin has no phase; a full-scale sine has magnitude 1.
    """

    label = "phase error"
    unit = "rad"
    better = "lower"

    def __init__(self, *, window: Samples = 2048, hop: Samples = 512, floor: Positive = 1e-5) -> None:
        self.window, self.hop, self.floor = window, hop, floor

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the error; see `Metric`."""
        e, r = (spectrum(x, self.window, self.hop) for x in check_signals(estimate, reference, torch.float64))
        sounds = e.abs() > self.floor
        weight = r.abs()
        weight = torch.where(weight > self.floor, weight, 0)
        if not weight.any():
            return math.pi / 2 if sounds.any() else 0.0
        turn = (e.angle() - r.angle()).abs()
        error = torch.where(sounds, torch.minimum(turn, 2 * math.pi - turn), math.pi / 2)
        return float((weight * error).sum() / weight.sum())


@register("metric/stereo_image_error")
class StereoImageError(Metric):
    """Trace distance of the channels' covariances in bands and frames, 0 to 1, weighted by the reference's magnitude.

    The stereo image in a band is perceived by level difference, coherence and phase difference of the channels
    (Breebaart et al. 2005, "Parametric coding of stereo audio"). These and the power form one matrix, the covariance
    `C = [[|L|^2, L R*], [L* R, |R|^2]]`, its entries summed over the band. The error is
    `|C_e / tr C_e - C_r / tr C_r|`, half the sum of the absolute eigenvalues: 0 for the same image, 1 for left alone
    instead of right, or in phase instead of out of phase; 1/2 for two unrelated channels instead of two equal ones. It
    is the same for channels as mid and side. Mono clips have an error of 0.

    A silent band has no image, and counts as 1 where the reference is not silent; if the whole reference is silent, the
    error is 1, or 0 if the estimate is silent too.

    A gain and a polarity flip of both channels are free, a shift by a sample nearly so. Swapped channels cost the
    difference of the levels, `||L|^2 - |R|^2| / (|L|^2 + |R|^2)` for panned sounds.

    Args:
        sample_rate: sample rate of the clips, in Hz.
        window: length of the Hann window in samples, at every sample rate.
        hop: samples between frames.
        num_mels: number of bands, from 0 Hz to half the sample rate.
        floor: magnitude below which a band is silent; a full-scale sine has magnitude 1.
    """

    label = "stereo image"
    better = "lower"

    def __init__(
        self,
        sample_rate: int,
        *,
        window: Samples = 2048,
        hop: Samples = 512,
        num_mels: Width = 24,
        floor: Positive = 1e-5,
    ) -> None:
        self.window, self.hop, self.silence = window, hop, floor**2
        self.bands = mel_bands(sample_rate=sample_rate, window=window, num_mels=num_mels).double()

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the error; see `Metric`."""
        estimate, reference = check_signals(estimate, reference, torch.float64)
        if len(reference) == 1:
            return 0.0
        if len(reference) != 2:
            raise PartitaError(f"clips have {len(reference)} channels; a stereo image needs 2")
        (e_power, e_left, e_cross), (r_power, r_left, r_cross) = map(self._covariance, (estimate, reference))
        sounds = e_power > self.silence
        weight = torch.where(r_power > self.silence, r_power.sqrt(), 0)
        if not weight.any():
            return float(sounds.any())
        # The difference of two matrices of trace 1 has trace 0: its eigenvalues are plus and minus the distance.
        distance = ((e_left - r_left).square() + (e_cross - r_cross).abs().square()).sqrt()
        return float((weight * torch.where(sounds, distance, 1)).sum() / weight.sum())

    def _covariance(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Trace of the covariance, left channel's share of it, and cross term over it, each `(bands, frames)`."""
        left, right = spectrum(signal, self.window, self.hop)
        powers = [self.bands @ channel.abs().square() for channel in (left, right)]
        cross = self.bands.to(left.dtype) @ (left * right.conj())
        trace = powers[0] + powers[1]
        divisor = torch.where(trace > 0, trace, 1)
        return trace, powers[0] / divisor, cross / divisor


@register("metric/loudness_error")
class LoudnessError(Metric):
    """Absolute difference of the gated integrated loudness of whole clips in LU, by ITU-R BS.1770-5.

    Loudness below the absolute gate counts as -70 LUFS, so silence has a value. A clip under 0.4 s is one block.

    A gain costs its dB. A polarity flip is free and so are swapped channels; a shift by a sample nearly is. Noise and a
    low-pass cost the K-weighted power that they add or remove.

    Args:
        sample_rate: sample rate of the clips, in Hz.
    """

    label = "loudness error"
    unit = "LU"
    better = "lower"

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the error; see `Metric`."""
        e, r = (self.loudness(signal) for signal in check_signals(estimate, reference, torch.float64))
        return abs(e - r)

    def loudness(self, signal: Tensor) -> float:
        """Integrated loudness in LUFS of `(channels, samples)` float64, at least -70."""
        weighted, step = self._weighted(signal), max(1, round(0.1 * self.sample_rate))
        steps = weighted[:, : weighted.shape[-1] // step * step].unflatten(-1, (-1, step)).square().mean(-1)
        # Blocks of 0.4 s, 0.1 s apart.
        blocks = steps.unfold(-1, 4, 1).mean(-1) if steps.shape[-1] >= 4 else weighted.square().mean(-1, keepdim=True)
        power = blocks.sum(0)
        power = power[power > 10 ** ((_GATE - _OFFSET) / 10)]
        if not len(power):
            return _GATE
        return float(_OFFSET + 10 * power[power > power.mean() / 10].mean().log10())

    def _weighted(self, signal: Tensor) -> Tensor:
        samples = signal.shape[-1]
        size = 1 << (samples + self.sample_rate).bit_length()  # the filters' response decays within a second
        frequencies = torch.fft.rfftfreq(size, 1 / self.sample_rate, dtype=torch.float64)
        return torch.fft.irfft(torch.fft.rfft(signal, n=size) * k_weighting(frequencies), n=size)[:, :samples]


# Recommendation ITU-R BS.1770-5, annex 1, tables 1 and 2: the biquads b0, b1, b2, a1, a2 of the K-weighting at 48 kHz,
# a shelf for the head and a high-pass.
_TABLE_RATE = 48_000
_BIQUADS = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285, -1.69065929318241, 0.73248077421585),
    (1.0, -2.0, 1.0, -1.99004745483398, 0.99007225036621),
)
_OFFSET = -0.691  # so that a full-scale sine of 997 Hz in one channel has -3.01 LUFS
_GATE = -70.0  # LUFS, the absolute gate


def k_weighting(frequencies: Tensor) -> Tensor:
    """Complex frequency response of the K-weighting.

    The standard gives filters for 48 kHz and asks for the same response at other sample rates, which this is. Above
    24 kHz, where it is undefined, the response at 24 kHz is used.

    Args:
        frequencies: frequencies in Hz, float64 of any shape.

    Returns:
        Gains, complex128 of the same shape.
    """
    angle = 2 * math.pi / _TABLE_RATE * frequencies.clamp_max(_TABLE_RATE / 2)
    delay = torch.polar(torch.ones_like(angle), -angle)
    response = torch.ones_like(delay)
    for b0, b1, b2, a1, a2 in _BIQUADS:
        response = response * (b0 + delay * (b1 + delay * b2)) / (1 + delay * (a1 + delay * a2))
    return response


SISDRConfig = config_of(SISDR)
PhaseErrorConfig = config_of(PhaseError)
StereoImageErrorConfig = config_of(StereoImageError)
LoudnessErrorConfig = config_of(LoudnessError)
