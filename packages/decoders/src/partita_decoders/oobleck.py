"""Convolutional decoder of Stable Audio Open (Oobleck), the baseline of the GenAE decoder."""

from partita_blocks import ACTIVATIONS, conv, conv_reach, up_stages
from partita_core import AudioSpec, FeedForwardDecoder, LatentSpec, config_of, register
from partita_core.ranges import Samples, Width
from torch import Tensor, nn

from ._common import ActivationName, check_latents


@register("decoder/oobleck", example={"strides": (3, 4, 2), "channels": (12, 8, 6, 6), "dilations": (1, 3)})
class OobleckDecoder(FeedForwardDecoder):
    """Transposed convolutions with dilated residual units (Oobleck).

    The defaults are the decoder of Stable Audio Open (arXiv 2407.14358, section 3): the layers of DAC
    (arXiv 2306.06546) with separate frequency and amplitude parameters in Snake, and without the final tanh.

    Args:
        latent_spec: format of the latents, one token per frame.
        audio_spec: format of the output audio; the network does not depend on the channel layout.
        strides: upsampling factor of each stage, from the latents on; their product is the hop.
        channels: width before the first stage and after each stage.
        dilations: dilations of the residual units of each stage.
        kernel: kernel size of the residual units.
        activation: activation function, a name in `partita_blocks.ACTIVATIONS`.

    Raises:
        PartitaError: the strides do not fit the latents, or `channels` does not have one entry more than `strides`.
    """

    tile_seconds = 6.0  # wide layers near the audio rate take 0.3 GB per second at the published size

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        strides: tuple[Samples, ...] = (8, 8, 4, 4, 2),
        channels: tuple[Width, ...] = (2048, 1024, 512, 256, 128, 128),
        dilations: tuple[Samples, ...] = (1, 3, 9),
        kernel: Samples = 7,
        activation: ActivationName = "snake_beta",
    ) -> None:
        super().__init__()
        check_latents("Oobleck", strides, latent_spec)
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        self.stem = conv(latent_spec.dim, channels[0], 7)
        stages = up_stages(
            channels,
            strides,
            dilations=dilations,
            kernel=kernel,
            separable=False,
            activation=ACTIVATIONS[activation],
        )
        self.stages = nn.ModuleList(stages)
        self.head = nn.Sequential(
            ACTIVATIONS[activation](channels[-1]), conv(channels[-1], audio_spec.channels, 7, bias=False)
        )
        first, last = conv_reach(0, self.hop - 1, 7)
        for stage in reversed(stages):
            first, last = stage.reach(first, last)
        first, last = conv_reach(first, last, 7)
        self.context = (-first, last)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` to `(batch, channels, hop * frames)`; layouts `(batch,)` are not used."""
        x = self.stem(hidden)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


OobleckDecoderConfig = config_of(OobleckDecoder)
