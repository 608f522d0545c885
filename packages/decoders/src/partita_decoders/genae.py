"""GenAE decoder: windowed attention at the latent rate, followed by transposed convolutions up to audio."""

from typing import Any

import torch
from partita_blocks import ACTIVATIONS, WindowedTransformer, conv, conv_reach, up_stages
from partita_core import (
    AudioSpec,
    Chain,
    ChannelLayout,
    FeedForwardDecoder,
    LatentSpec,
    Precision,
    Stream,
    TiledStream,
    compile_frozen,
    config_of,
    register,
    reject_sampler,
    sum_contexts,
)
from partita_core.ranges import Extras, Frames, Heads, Layers, Samples, Width
from torch import Tensor, nn

from ._common import ActivationName, check_latents


@register(
    "decoder/genae",
    example={
        "strides": (3, 4, 2),
        "channels": (16, 12, 8, 8),
        "dilations": (1, 3),
        "attention_dim": 16,
        "attention_layers": 1,
        "heads": 2,
        "head_dim": 8,
        "window": 3,
        "mlp_ratio": 2,
    },
)
class GenAEDecoder(FeedForwardDecoder):
    """Windowed attention, followed by transposed convolutions with full residual units (GenAE).

    The kinds of layers are those of arXiv 2602.15749; all sizes are ours (docs/provenance.md). The channel layout
    enters the attention layers as a format token.

    Args:
        latent_spec: format of the latents, one token per frame.
        audio_spec: format of the output audio.
        strides: upsampling factor of each stage, from the latents on; their product is the hop.
        channels: width before the first stage and after each stage.
        dilations: dilations of the residual units of each stage.
        kernel: kernel size of the residual units.
        separable: use depthwise-separable residual units instead of full convolutions, which are reported to be faster
            in a decoder on GPUs.
        activation: activation function, a name in `partita_blocks.ACTIVATIONS`.
        attention_dim: width of the transformer.
        attention_layers: number of transformer blocks; 0 for none.
        heads: number of attention heads.
        head_dim: width of each attention head.
        window: attention range in frames to either side.
        mlp_ratio: width of the MLP, in multiples of `attention_dim`.

    Raises:
        PartitaError: the strides do not fit the latents, or `channels` does not have one entry more than `strides`.
    """

    def __init__(
        self,
        latent_spec: LatentSpec,
        audio_spec: AudioSpec,
        *,
        strides: tuple[Samples, ...] = (10, 8, 7, 6),
        channels: tuple[Width, ...] = (1024, 512, 256, 128, 128),
        dilations: tuple[Samples, ...] = (1, 3, 9),
        kernel: Samples = 7,
        separable: bool = False,
        activation: ActivationName = "snake_lite",
        attention_dim: Width = 512,
        attention_layers: Extras = 4,
        heads: Heads = 8,
        head_dim: Width = 64,
        window: Frames = 16,
        mlp_ratio: Layers = 4,
    ) -> None:
        super().__init__()
        check_latents("GenAE", strides, latent_spec)
        self.in_dim, self.hop, self.audio_spec = latent_spec.dim, latent_spec.hop, audio_spec
        # Layers are built in this order, which decides the weights that a seed gives, and registered in that of the
        # forward pass below.
        stages = up_stages(
            channels,
            strides,
            dilations=dilations,
            kernel=kernel,
            separable=separable,
            activation=ACTIVATIONS[activation],
        )
        transformer = WindowedTransformer(
            attention_dim,
            layers=attention_layers,
            heads=heads,
            head_dim=head_dim,
            window=window,
            mlp_ratio=mlp_ratio,
            conditions=len(ChannelLayout),
        )
        self.stem = conv(latent_spec.dim, attention_dim, 3)
        self.transformer = transformer
        self.expand = conv(attention_dim, channels[0], 1)
        self.stages = nn.ModuleList(stages)
        self.head = nn.Sequential(
            ACTIVATIONS[activation](channels[-1]), conv(channels[-1], audio_spec.channels, 7, bias=False)
        )
        # A stream runs in two halves: `_attend`, with a context of seconds, and `_convolve`, with a short one.
        first, last = conv_reach(*transformer.reach(0, 0), 3)
        self._early = (-first, last)
        first, last = conv_reach(0, self.hop - 1, 7)
        for stage in reversed(stages):
            first, last = stage.reach(first, last)
        self._late = (-first, last)
        self.context = sum_contexts(self._early, self._late)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` of layouts `(batch,)` to `(batch, channels, hop * frames)`."""
        return self._convolve(self._attend(hidden, layout))

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """Return a stream, as `FeedForwardDecoder.stream` does.

        Attention and convolutions are streamed separately, so that the expensive convolutions are not recomputed over
        attention's seconds of context.
        """
        reject_sampler(self, sampler)
        settings: dict[str, Any] = {"units_in": 1, "hop": self.hop}
        attend = TiledStream(
            lambda x: self._attend(x, layout.to(x.device)), units_out=1, context=self._early, width=width, **settings
        )
        # Layers near the audio rate take much memory and have a short context: they run on fewer frames at a time.
        narrow = max(1, width // 10)
        convolve = TiledStream(self._convolve, units_out=self.hop, context=self._late, width=narrow, **settings)
        return Chain(attend, convolve)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare for inference, as `Role.optimize` does; each stage is compiled separately."""
        super().optimize(precision=precision, compile=False)
        if compile:
            compile_frozen(*self.stages)  # instead of `forward`, which a stream does not call

    def _attend(self, hidden: Tensor, layout: Tensor) -> Tensor:
        return self.transformer(self.stem(hidden), layout)

    def _convolve(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


GenAEDecoderConfig = config_of(GenAEDecoder)
