"""The Oobleck encoder: strided convolutions with dilated residual units, all the way down; the baseline for GenAE's."""

from dataclasses import dataclass
from math import prod
from typing import Literal

from partita_blocks import ACTIVATIONS, DownStage, conv, conv_reach, down_stages
from partita_core import AudioSpec, Config, Encoder, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn


@register("encoder/oobleck")
@dataclass(frozen=True)
class OobleckEncoderConfig(Config):
    """Residual units, then a strided convolution, stage by stage (Oobleck).

    As it is, the encoder of Stable Audio Open (arXiv 2407.14358, section 3): the layers of DAC (arXiv 2306.06546) with
    Snake's frequency and amplitude learned apart. `early`, `separable`, `activation` and `strides` are what GenAE
    (arXiv 2602.15749) changes in it before it adds anything, one by one.

    Attributes:
        strides: downsampling of each stage; their product is the hop.
        channels: width of the stem and after each stage.
        dilations: of the residual units of a stage.
        kernel: taps of the residual units.
        separable: depthwise and pointwise residual units instead of full ones.
        early: the strided convolution before the residual units of its stage instead of behind them.
        activation: a name in `partita_blocks.ACTIVATIONS`.
    """

    strides: tuple[Samples, ...] = (2, 4, 4, 8, 8)
    channels: tuple[Width, ...] = (128, 128, 256, 512, 1024, 2048)
    dilations: tuple[Samples, ...] = (1, 3, 9)
    kernel: Samples = 7
    separable: bool = False
    early: bool = False
    activation: Literal["snake_lite", "snake", "snake_beta", "elu"] = "snake_beta"

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "OobleckEncoder":
        """Builds the encoder of audio of `audio_spec` to frames of width `out_dim`."""
        activation = ACTIVATIONS[self.activation]
        return OobleckEncoder(
            stem=conv(audio_spec.channels, self.channels[0], 7),
            stages=down_stages(
                self.channels,
                self.strides,
                dilations=self.dilations,
                kernel=self.kernel,
                separable=self.separable,
                early=self.early,
                activation=activation,
            ),
            head=nn.Sequential(activation(self.channels[-1]), conv(self.channels[-1], out_dim, 3)),
            out_dim=out_dim,
            hop=prod(self.strides),
            audio_spec=audio_spec,
        )

    @classmethod
    def example(cls) -> "OobleckEncoderConfig":
        """Hop 24, a few thousand parameters."""
        return cls(strides=(2, 4, 3), channels=(6, 6, 8, 12), dilations=(1, 3))


class OobleckEncoder(Encoder):
    """Audio to hidden frames; see `OobleckEncoderConfig`."""

    tile_seconds = 6.0  # at the published size a second takes 0.3 GB, for layers near the rate of audio are wide

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: list[DownStage],
        head: nn.Module,
        out_dim: int,
        hop: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles stem (kernel 7), stages, head (kernel 3)."""
        super().__init__()
        self.stem, self.stages, self.head = stem, nn.ModuleList(stages), head
        self.out_dim, self.hop, self.audio_spec = out_dim, hop, audio_spec
        first, last = conv_reach(0, 0, 3)
        for stage in reversed(stages):
            first, last = stage.reach(first, last)
        first, last = conv_reach(first, last, 7)
        self.context = (-(first // hop), last // hop)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` to `(batch, out_dim, frames)`; layouts `(batch,)` change nothing."""
        x = self.stem(audio)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)
