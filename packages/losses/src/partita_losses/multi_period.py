"""Discriminators of audio folded at several periods (HiFi-GAN)."""

from einops import rearrange
from partita_blocks import reflect_pad
from partita_core import Discriminator, DiscriminatorOutput, PartitaError, config_of, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ._discriminators import classify

SLOPE = 0.1


@register("discriminator/multi_period", example={"periods": (2, 3), "channels": 2})
class MultiPeriodDiscriminators(Discriminator):
    """One discriminator per period p, which compares only samples that are a multiple of p apart.

    From HiFi-GAN (Kong et al., 2020, arXiv 2010.05646, section 2.3): audio is folded to `(samples / p, p)`, with the
    end padded by reflection, and 2-D convolutions of width 1 run along the first axis, with weight normalization and
    leaky ReLU. All channels of the audio are input channels. Periods are primes, so that they share few samples.

    Args:
        audio_channels: channels of the audio.
        periods: samples from one compared sample to the next, one per discriminator.
        channels: filters of the first layer; those after it have 4, 16, 32 and 32 times as many.

    Raises:
        PartitaError: there are no periods.
    """

    def __init__(
        self, audio_channels: int = 1, *, periods: tuple[Samples, ...] = (2, 3, 5, 7, 11), channels: Width = 32
    ) -> None:
        super().__init__()
        if not periods:
            raise PartitaError("periods is empty; give at least one period")
        self.periods = nn.ModuleList(_Period(audio_channels, period, channels) for period in periods)

    def forward(self, signal: Tensor) -> list[DiscriminatorOutput]:
        """Classify `(batch, channels, samples)`; logits are `(batch, 1, samples / (81 * period), period)`."""
        return [period(signal) for period in self.periods]


MultiPeriodDiscriminatorsConfig = config_of(MultiPeriodDiscriminators)


class _Period(nn.Module):
    def __init__(self, audio_channels: int, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [audio_channels, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]
        self.hidden = nn.ModuleList(
            _conv(width, widths[i + 1], 5, stride=3 if i < 4 else 1) for i, width in enumerate(widths[:-1])
        )
        self.last = _conv(widths[-1], 1, 3, stride=1)

    def forward(self, audio: Tensor) -> DiscriminatorOutput:
        audio = reflect_pad(audio, 0, -audio.shape[-1] % self.period)
        folded = rearrange(audio, "batch channels (time period) -> batch channels time period", period=self.period)
        return classify(self.hidden, self.last, folded, slope=SLOPE)


def _conv(in_channels: int, out_channels: int, kernel: int, *, stride: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, (kernel, 1), stride=(stride, 1), padding=(kernel // 2, 0))
    return weight_norm(conv)
