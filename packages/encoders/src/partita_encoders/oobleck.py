"""Convolutional encoder of Stable Audio Open (Oobleck), the baseline of the GenAE encoder."""

from math import prod

from partita_blocks import ACTIVATIONS, conv, conv_reach, down_stages
from partita_core import AudioSpec, Encoder, config_of, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn

from ._common import ActivationName


@register("encoder/oobleck", example={"strides": (2, 4, 3), "channels": (6, 6, 8, 12), "dilations": (1, 3)})
class OobleckEncoder(Encoder):
    """Strided convolutions with dilated residual units (Oobleck).

    The defaults are the encoder of Stable Audio Open (arXiv 2407.14358, section 3): the layers of DAC
    (arXiv 2306.06546) with separate frequency and amplitude parameters in Snake. `early`, `separable`, `activation` and
    `strides` cover the steps from this encoder to that of GenAE (arXiv 2602.15749) before its additions.

    Args:
        out_dim: width of the hidden frames.
        audio_spec: format of the input audio; the network does not depend on the channel layout.
        strides: downsampling factor of each stage; their product is the hop.
        channels: width of the stem and after each stage.
        dilations: dilations of the residual units of each stage.
        kernel: kernel size of the residual units.
        separable: use depthwise-separable residual units instead of full convolutions.
        early: place the strided convolution of a stage before its residual units instead of after them.
        activation: activation function, a name in `partita_blocks.ACTIVATIONS`.

    Raises:
        PartitaError: `channels` does not have one entry more than `strides`.
    """

    tile_seconds = 6.0  # wide layers near the audio rate take 0.3 GB per second at the published size

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        strides: tuple[Samples, ...] = (2, 4, 4, 8, 8),
        channels: tuple[Width, ...] = (128, 128, 256, 512, 1024, 2048),
        dilations: tuple[Samples, ...] = (1, 3, 9),
        kernel: Samples = 7,
        separable: bool = False,
        early: bool = False,
        activation: ActivationName = "snake_beta",
    ) -> None:
        super().__init__()
        self.out_dim, self.hop, self.audio_spec = out_dim, prod(strides), audio_spec
        self.stem = conv(audio_spec.channels, channels[0], 7)
        stages = down_stages(
            channels,
            strides,
            dilations=dilations,
            kernel=kernel,
            separable=separable,
            early=early,
            activation=ACTIVATIONS[activation],
        )
        self.stages = nn.ModuleList(stages)
        self.head = nn.Sequential(ACTIVATIONS[activation](channels[-1]), conv(channels[-1], out_dim, 3))
        first, last = conv_reach(0, 0, 3)
        for stage in reversed(stages):
            first, last = stage.reach(first, last)
        first, last = conv_reach(first, last, 7)
        self.context = (-(first // self.hop), last // self.hop)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` to `(batch, out_dim, frames)`; layouts `(batch,)` are not used."""
        x = self.stem(audio)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


OobleckEncoderConfig = config_of(OobleckEncoder)
