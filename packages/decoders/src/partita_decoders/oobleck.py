"""The Oobleck decoder: transposed convolutions with dilated residual units, all the way up."""

from dataclasses import dataclass
from typing import Literal

from partita_blocks import ACTIVATIONS, UpStage, conv, conv_reach, up_stages
from partita_core import AudioSpec, Config, FeedForwardDecoder, LatentSpec, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn

from ._common import check_fit


@register("decoder/oobleck")
@dataclass(frozen=True)
class OobleckDecoderConfig(Config):
    """A transposed convolution, then residual units, stage by stage (Oobleck).

    As it is, the decoder of Stable Audio Open (arXiv 2407.14358, section 3): the layers of DAC (arXiv 2306.06546) with
    Snake's frequency and amplitude learned apart, and no tanh behind the last.

    Attributes:
        strides: upsampling of each stage, from the latents to audio; their product is the hop.
        channels: width before the first stage and after each.
        dilations: of the residual units of a stage.
        kernel: taps of the residual units.
        activation: a name in `partita_blocks.ACTIVATIONS`.
    """

    strides: tuple[Samples, ...] = (8, 8, 4, 4, 2)
    channels: tuple[Width, ...] = (2048, 1024, 512, 256, 128, 128)
    dilations: tuple[Samples, ...] = (1, 3, 9)
    kernel: Samples = 7
    activation: Literal["snake_lite", "snake", "snake_beta", "elu"] = "snake_beta"

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "OobleckDecoder":
        """Builds the decoder for latents of `latent_spec` and audio of `audio_spec`."""
        check_fit("Oobleck", self.strides, latent_spec)
        activation = ACTIVATIONS[self.activation]
        return OobleckDecoder(
            stem=conv(latent_spec.dim, self.channels[0], 7),
            stages=up_stages(
                self.channels,
                self.strides,
                dilations=self.dilations,
                kernel=self.kernel,
                separable=False,
                activation=activation,
            ),
            head=nn.Sequential(
                activation(self.channels[-1]), conv(self.channels[-1], audio_spec.channels, 7, bias=False)
            ),
            in_dim=latent_spec.dim,
            hop=latent_spec.hop,
            audio_spec=audio_spec,
        )

    @classmethod
    def example(cls) -> "OobleckDecoderConfig":
        """Hop 24, a few thousand parameters."""
        return cls(strides=(3, 4, 2), channels=(12, 8, 6, 6), dilations=(1, 3))


class OobleckDecoder(FeedForwardDecoder):
    """Latents to audio; see `OobleckDecoderConfig`."""

    tile_seconds = 6.0  # at the published size a second takes 0.3 GB, for layers near the rate of audio are wide

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: list[UpStage],
        head: nn.Module,
        in_dim: int,
        hop: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles stem (kernel 7), stages, head (kernel 7)."""
        super().__init__()
        self.stem, self.stages, self.head = stem, nn.ModuleList(stages), head
        self.in_dim, self.hop, self.audio_spec = in_dim, hop, audio_spec
        first, last = conv_reach(0, hop - 1, 7)
        for stage in reversed(stages):
            first, last = stage.reach(first, last)
        first, last = conv_reach(first, last, 7)
        self.context = (-first, last)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """`(batch, in_dim, frames)` to `(batch, channels, hop * frames)`; layouts `(batch,)` change nothing."""
        x = self.stem(hidden)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)
