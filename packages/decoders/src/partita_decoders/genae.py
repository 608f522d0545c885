"""The GenAE decoder: windowed attention at the latent rate, then transposed convolutions up to audio."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from partita_blocks import ACTIVATIONS, UpStage, WindowedTransformer, conv, conv_reach, up_stages
from partita_core import (
    AudioSpec,
    Chain,
    ChannelLayout,
    Config,
    FeedForwardDecoder,
    LatentSpec,
    Precision,
    Stream,
    TiledStream,
    compile_frozen,
    register,
    sum_contexts,
)
from partita_core.ranges import Extras, Frames, Heads, Layers, Samples, Width
from torch import Tensor, nn

from ._common import check_fit


@register("decoder/genae")
@dataclass(frozen=True)
class GenAEDecoderConfig(Config):
    """Windowed attention, then transposed convolutions with full residual units (GenAE).

    The kinds of layers are those of arXiv 2602.15749; all sizes are ours (docs/provenance.md).

    Attributes:
        strides: upsampling of each stage, from the latents to audio; their product is the hop.
        channels: width before the first stage and after each.
        dilations: of the residual units of a stage.
        kernel: taps of the residual units.
        separable: separable residual units; full ones are reported to be faster in a decoder on GPUs.
        activation: a name in `partita_blocks.ACTIVATIONS`.
        attention_dim: width of the transformer.
        attention_layers: its blocks; 0 for none.
        heads: attention heads.
        head_dim: width of a head.
        window: frames that attention sees to either side.
        mlp_ratio: width of the MLP over `attention_dim`.
        format: how the layout is told, as a token or added to every frame.
    """

    strides: tuple[Samples, ...] = (10, 8, 7, 6)
    channels: tuple[Width, ...] = (1024, 512, 256, 128, 128)
    dilations: tuple[Samples, ...] = (1, 3, 9)
    kernel: Samples = 7
    separable: bool = False
    activation: Literal["snake_lite", "snake", "snake_beta", "elu"] = "snake_lite"
    attention_dim: Width = 512
    attention_layers: Extras = 4
    heads: Heads = 8
    head_dim: Width = 64
    window: Frames = 16
    mlp_ratio: Layers = 4
    format: Literal["token", "add"] = "token"

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "GenAEDecoder":
        """Builds the decoder for latents of `latent_spec` and audio of `audio_spec`."""
        check_fit("GenAE", self.strides, latent_spec)
        activation = ACTIVATIONS[self.activation]
        stages = up_stages(
            self.channels,
            self.strides,
            dilations=self.dilations,
            kernel=self.kernel,
            separable=self.separable,
            activation=activation,
        )
        transformer = WindowedTransformer(
            self.attention_dim,
            layers=self.attention_layers,
            heads=self.heads,
            head_dim=self.head_dim,
            window=self.window,
            mlp_ratio=self.mlp_ratio,
            conditions=len(ChannelLayout),
            condition=self.format,
        )
        return GenAEDecoder(
            stem=conv(latent_spec.dim, self.attention_dim, 3),
            transformer=transformer,
            expand=conv(self.attention_dim, self.channels[0], 1),
            stages=stages,
            head=nn.Sequential(
                activation(self.channels[-1]), conv(self.channels[-1], audio_spec.channels, 7, bias=False)
            ),
            in_dim=latent_spec.dim,
            hop=latent_spec.hop,
            audio_spec=audio_spec,
        )

    @classmethod
    def example(cls) -> "GenAEDecoderConfig":
        """Hop 24, a few thousand parameters."""
        return cls(
            strides=(3, 4, 2),
            channels=(16, 12, 8, 8),
            dilations=(1, 3),
            attention_dim=16,
            attention_layers=1,
            heads=2,
            head_dim=8,
            window=3,
            mlp_ratio=2,
        )


class GenAEDecoder(FeedForwardDecoder):
    """Latents to audio; see `GenAEDecoderConfig`."""

    def __init__(
        self,
        *,
        stem: nn.Module,
        transformer: WindowedTransformer,
        expand: nn.Module,
        stages: list[UpStage],
        head: nn.Module,
        in_dim: int,
        hop: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles the layers of table 2.5: stem (kernel 3), transformer, expand (1), stages, head (kernel 7)."""
        super().__init__()
        self.stem, self.transformer, self.expand = stem, transformer, expand
        self.stages, self.head = nn.ModuleList(stages), head
        self.in_dim, self.hop, self.audio_spec = in_dim, hop, audio_spec
        first, last = conv_reach(0, hop - 1, 7)
        for stage in reversed(stages):
            first, last = stage.reach(first, last)
        self._late = (-first, last)
        first, last = conv_reach(*transformer.reach(0, 0), 3)
        self._early = (-first, last)
        self.context = sum_contexts(self._early, self._late)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """`(batch, in_dim, frames)` and layouts `(batch,)` to `(batch, channels, hop * frames)`."""
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
        """As `FeedForwardDecoder.stream`, in two: convolutions need not run on all that attention sees."""
        self._refuse(sampler)
        settings: dict[str, Any] = {"units_in": 1, "hop": self.hop}
        attend = TiledStream(
            lambda x: self._attend(x, layout.to(x.device)), units_out=1, context=self._early, width=width, **settings
        )
        # Near the rate of audio frames take much memory: fewer go through at a time, and see little beside them.
        narrow = max(1, width // 10)
        convolve = TiledStream(self._convolve, units_out=self.hop, context=self._late, width=narrow, **settings)
        return Chain(attend, convolve)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """As `Role.optimize`; the stages are compiled, each by itself."""
        super().optimize(precision=precision, compile=False)
        if compile:
            compile_frozen(*self.stages)  # not `forward`, which a stream does not call

    def _attend(self, hidden: Tensor, layout: Tensor) -> Tensor:
        return self.transformer(self.stem(hidden), layout)

    def _convolve(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)
