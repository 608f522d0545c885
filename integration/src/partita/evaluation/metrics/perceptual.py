"""Perceptual metrics of the packages pystoi, pesq and visqol-python, which the extra `perceptual` installs."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from partita_core import Metric, PartitaError, check_signals, config_of, register
from torch import Tensor

from partita.data.audio.resampling import resample

_VISQOL_RATE = 48_000  # sample rate in Hz of ViSQOL's mode for general audio


@register("metric/stoi")
class STOI(Metric):
    """Short-time objective intelligibility, at most 1, averaged over channels (Taal et al. 2011).

    The correlation of the envelopes of 15 third-octave bands up to 4.3 kHz over 0.4 s, designed for speech. Clips are
    resampled to 10 kHz. Channels that are silent in the reference are left out; a clip without 0.4 s within 40 dB of
    its loudest part cannot be measured.

    A gain and a polarity flip are free, a shift by a sample nearly so. Noise costs much; a low-pass costs what it
    removes from these bands. Swapped channels cost the difference of their envelopes.

    Args:
        sample_rate: sample rate of the clips, in Hz.

    Raises:
        PartitaError: pystoi is not installed.
    """

    label = "STOI"
    better = "higher"
    any_clip = False
    extended = False

    def __init__(self, sample_rate: int) -> None:
        try:
            from pystoi import stoi
        except ImportError:
            raise _missing(self.label.lower(), "pystoi") from None
        self.measure, self.sample_rate = stoi, sample_rate

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the intelligibility; see `Metric`."""
        both = check_signals(estimate, reference, torch.float64)
        with warnings.catch_warnings(action="error", category=RuntimeWarning):  # pystoi warns about short clips
            found = _mean_over_channels(self._channel, *both, errors=(RuntimeWarning, ValueError))
        if found is None:
            seconds = reference.shape[-1] / self.sample_rate
            raise PartitaError(f"{self.name} needs 0.4 s of sound; this clip of {seconds:.2f} s has less")
        return found

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        return float(self.measure(reference.numpy(), estimate.numpy(), self.sample_rate, extended=self.extended))


@register("metric/estoi")
class ESTOI(STOI):
    """Extended short-time objective intelligibility, at most 1, averaged over channels (Jensen and Taal 2016).

    As `STOI`, but spectra and envelopes of 0.4 s are normalized together, so that noise that varies in time, such as
    the artifacts of a codec at a low rate, costs what it costs listeners. A gain and a polarity flip are free, a shift
    by a sample nearly so. Swapped channels cost the difference of their envelopes.
    """

    label = "ESTOI"
    extended = True

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        if not estimate.any():
            return 0.0
        state = np.random.get_state()  # pystoi adds tiny noise, by which silent bands would be random
        np.random.seed(0)
        try:
            return super()._channel(estimate, reference)
        finally:
            np.random.set_state(state)


@register("metric/pesq")
class PESQ(Metric):
    """Perceptual evaluation of speech quality as MOS-LQO, 1 to 4.64, averaged over channels (ITU-T P.862).

    Wide band (P.862.2) at 16 kHz, or narrow band (P.862.1, at most 4.55) at 8 kHz for clips of a lower sample rate;
    designed for speech. The code of the package pesq is the ITU's and has its own license. Channels that are silent in
    the reference are left out; a silent estimate gets 1. A clip under 0.25 s, or without a detected utterance, cannot
    be measured.

    Levels are matched and delays are compensated first: a gain and a shift by a sample are nearly free. A polarity flip
    is free. Noise costs much, as does a low-pass under 8 kHz (4 kHz). Swapped channels cost their difference.

    Args:
        sample_rate: sample rate of the clips, in Hz.

    Raises:
        PartitaError: pesq is not installed.
    """

    label = "PESQ"
    better = "higher"
    any_clip = False

    def __init__(self, sample_rate: int) -> None:
        try:
            from pesq import PesqError, pesq  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise _missing("pesq", "pesq") from None
        self.measure, self.error, self.sample_rate = pesq, PesqError, sample_rate
        self.rate, self.mode = (16_000, "wb") if sample_rate >= 16_000 else (8_000, "nb")

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the quality; see `Metric`."""
        signals = check_signals(estimate, reference, torch.float32)
        resampled = (resample(x, self.sample_rate, self.rate) for x in signals)
        found = _mean_over_channels(self._channel, *resampled, errors=self.error)
        if found is None:
            seconds = reference.shape[-1] / self.sample_rate
            raise PartitaError(f"pesq finds no utterance in a clip of {seconds:.2f} s")
        return found

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        if not estimate.any():
            return 1.0
        return float(self.measure(self.rate, reference.numpy(), estimate.numpy(), self.mode))


@register("metric/visqol")
class ViSQOL(Metric):
    """Perceived quality of music and other audio as MOS-LQO, 1 to 4.73, averaged over channels (Chinen et al. 2020).

    Gammatone spectrograms of patches of 0.6 s at 48 kHz, each aligned in time, are compared by their structure (NSIM),
    and a support vector machine maps the similarity of 32 bands to listeners' scores. Measuring takes longer than the
    clip lasts. Channels that are silent in the reference are left out; a silent estimate gets 1. A clip without a
    patch, under about a second, cannot be measured.

    Levels are matched and delays compensated first: a gain, a polarity flip and a shift by a sample are free. Noise and
    a low-pass cost much. Swapped channels cost their difference.

    Args:
        sample_rate: sample rate of the clips, in Hz.

    Raises:
        PartitaError: visqol-python is not installed.
    """

    label = "ViSQOL"
    better = "higher"
    any_clip = False

    def __init__(self, sample_rate: int) -> None:
        try:
            from visqol import VisqolApi  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise _missing("visqol", "visqol-python") from None
        api = VisqolApi()
        api.create(mode="audio")
        self.measure, self.sample_rate = api.measure_from_arrays, sample_rate

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """Return the quality; see `Metric`."""
        signals = check_signals(estimate, reference, torch.float64)
        resampled = (resample(x, self.sample_rate, _VISQOL_RATE) for x in signals)
        found = _mean_over_channels(self._channel, *resampled, errors=ValueError)
        if found is None:
            seconds = reference.shape[-1] / self.sample_rate
            raise PartitaError(f"visqol finds no patch of 0.6 s with sound in a clip of {seconds:.2f} s")
        return found

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        if not estimate.any():
            return 1.0
        with np.errstate(all="ignore"):  # patches without sound divide by zero
            return float(self.measure(reference.numpy(), estimate.numpy(), _VISQOL_RATE).moslqo)


def _mean_over_channels(
    measure: Callable[[Tensor, Tensor], float],
    estimate: Tensor,
    reference: Tensor,
    *,
    errors: type[Exception] | tuple[type[Exception], ...],
) -> float | None:
    """Mean of `measure(estimate, reference)` over channels that are not silent in the reference.

    None if all are silent, or if `measure` raises one of `errors`, by which it rejects a channel.
    """
    try:
        found = [measure(e, r) for e, r in zip(estimate, reference) if r.any()]
    except errors:
        return None
    return sum(found) / len(found) if found else None


def _missing(metric: str, package: str) -> PartitaError:
    return PartitaError(f"{metric} needs the package {package}: `pip install 'partita[perceptual]'`")


STOIConfig = config_of(STOI)
ESTOIConfig = config_of(ESTOI)
PESQConfig = config_of(PESQ)
ViSQOLConfig = config_of(ViSQOL)
