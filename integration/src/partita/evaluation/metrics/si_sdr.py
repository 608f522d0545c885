"""Scale-invariant signal-to-distortion ratio."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import Config, register
from partita_core.ranges import Finite
from torch import Tensor

from .base import Metric, pair


@register("metric/si_sdr")
@dataclass(frozen=True)
class SISDRConfig(Config):
    """Scale-invariant signal-to-distortion ratio in dB.

    Attributes:
        limit_db: the figure is kept within plus and minus this; equal signals get exactly it.
        silence_db: the level, as RMS in dB of full scale, under which a channel counts as silent.
    """

    limit_db: Finite = 100.0
    silence_db: Finite = -100.0

    def build(self, *, sample_rate: int) -> "SISDR":
        """Builds the metric; the sample rate does not matter to it."""
        return SISDR(limit_db=self.limit_db, silence_db=self.silence_db)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


class SISDR(Metric):
    """Scale-invariant SDR in dB, the mean over channels (Le Roux et al. 2019, arXiv 1811.02508, equation 3).

    `10 log10(|a r|^2 / |e - a r|^2)` with `a = <e, r> / <r, r>`; no mean is taken off.

    A gain is free, and so is a polarity flip, which is a negative one. A shift by a sample costs much where there are
    high frequencies. Swapped channels are compared with each other, and in common have what they share.

    Where the formula has no value: a silent estimate of a sounding reference gets `-limit_db`. Channels that are
    silent in the reference are left out; if all are, the figure is `limit_db` where the estimate is silent as
    well, and `-limit_db` where it is not.
    """

    name = "si_sdr"
    label = "SI-SDR"
    unit = "dB"
    better = "higher"

    def __init__(self, *, limit_db: float, silence_db: float) -> None:
        self.limit_db = limit_db
        self.silence = 10 ** (silence_db / 10)

    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        estimate, reference = pair(estimate, reference, torch.float64)
        sounding = reference.square().mean(-1) > self.silence
        if not sounding.any():
            quiet = bool((estimate.square().mean(-1) <= self.silence).all())
            return self.limit_db if quiet else -self.limit_db
        estimate, reference = estimate[sounding], reference[sounding]
        gain = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True)
        target = gain * reference
        signal, error = target.square().sum(-1), (estimate - target).square().sum(-1)
        # An exact estimate divides by 0 and gets the limit; of a silent one 0 / 0 is the worst there is.
        ratio = (signal / error).nan_to_num(nan=0.0, posinf=torch.inf)
        return float((10 * ratio.log10()).clamp(-self.limit_db, self.limit_db).mean())
