"""Multi-scale mel distance."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_core import AudioSpec, ChannelLayout, Config, register
from partita_losses import MultiScaleMel, MultiScaleMelConfig
from torch import Tensor

from .base import Metric, pair


@register("metric/multi_scale_mel")
@dataclass(frozen=True)
class MultiScaleMelDistanceConfig(Config):
    """The loss `multi_scale_mel`, as it is by default, without training: DAC's seven scales."""

    def build(self, *, sample_rate: int) -> "MultiScaleMelDistance":
        """Builds the metric for audio of `sample_rate` Hz; its windows are in samples, whatever the rate."""
        spec = AudioSpec(sample_rate, 1, (ChannelLayout.MONO,))
        return MultiScaleMelDistance(loss=MultiScaleMelConfig().build(audio_spec=spec))

    @classmethod
    def example(cls) -> Self:
        """The only one there is."""
        return cls()


class MultiScaleMelDistance(Metric):
    """Mean absolute difference of log10 mel-band magnitudes, summed over the scales of `partita_losses.MultiScaleMel`.

    From DAC (Kumar et al. 2023, arXiv 2306.06546, section 3.5). The mean is over channels, bands and frames. Windows of
    32 to 2048 samples count attacks as much as tones. Figures at different sample rates are not comparable.

    A gain of g costs |log10 g| a scale, of those bands that have a bin and are above the floor. Phase does not enter: a
    polarity flip is free; a shift by a sample costs little, more in the short windows. Swapped channels cost their
    difference.
    """

    name = "multi_scale_mel"
    label = "multi-scale mel"
    unit = ""
    better = "lower"

    def __init__(self, *, loss: MultiScaleMel) -> None:
        self.loss = loss

    @torch.no_grad()
    def __call__(self, estimate: Tensor, reference: Tensor) -> float:
        """The figure; see `Metric`."""
        estimate, reference = pair(estimate, reference, torch.float32)
        return float(self.loss(estimate[None], reference[None]))
