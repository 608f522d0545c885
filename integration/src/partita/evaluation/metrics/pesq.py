"""Perceptual evaluation of speech quality."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from partita_core import Config, PartitaError, register
from torch import Tensor

from partita.data.audio.resampling import resample

from .base import Metric, mean_over_channels, pair


@register("metric/pesq")
@dataclass(frozen=True)
class PESQConfig(Config):
    """Perceptual evaluation of speech quality, by the package pesq; its code is the ITU's, under terms of its own."""

    any_clip: ClassVar[bool] = False

    def build(self, *, sample_rate: int) -> "PESQ":
        """Builds the metric for audio of `sample_rate` Hz.

        Raises:
            PartitaError: pesq is not installed.
        """
        try:
            from pesq import PesqError, pesq  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise PartitaError("pesq is measured by the package pesq: `pip install 'partita[perceptual]'`") from None
        return PESQ(measure=pesq, refusal=PesqError, sample_rate=sample_rate)

    @classmethod
    def example(cls) -> Self:
        """The only one there is."""
        return cls()


class PESQ(Metric):
    """Perceptual evaluation of speech quality as MOS-LQO, 1 to 4.64, the mean over channels (ITU-T P.862).

    Wide band (P.862.2) of the audio at 16 kHz; of audio of a lower rate narrow band (P.862.1, up to 4.55) at 8 kHz. It
    is made for speech. Channels that are silent in the reference are left out; a silent estimate gets 1. A clip under
    0.25 s, or without what it takes for an utterance, is refused.

    Levels are matched and delays are found first: a gain and a shift by a sample are nearly free. A polarity flip is
    free. Noise costs much, as does a low-pass under 8 kHz (4 kHz). Swapped channels cost their difference.
    """

    name = "pesq"
    label = "PESQ"
    unit = ""
    better = "higher"

    def __init__(self, *, measure: Callable[..., Any], refusal: type[Exception], sample_rate: int) -> None:
        self.measure, self.refusal, self.sample_rate = measure, refusal, sample_rate
        self.rate, self.mode = (16_000, "wb") if sample_rate >= 16_000 else (8_000, "nb")

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        heard = (resample(x, self.sample_rate, self.rate) for x in pair(estimate, reference, torch.float32))
        found = mean_over_channels(self._channel, *heard, refusal=self.refusal)
        if found is None:
            seconds = reference.shape[-1] / self.sample_rate
            raise PartitaError(f"pesq finds no utterance in a clip of {seconds:.2f} s")
        return found

    def _channel(self, estimate: Tensor, reference: Tensor) -> float:
        if not estimate.any():
            return 1.0
        return float(self.measure(self.rate, reference.numpy(), estimate.numpy(), self.mode))
