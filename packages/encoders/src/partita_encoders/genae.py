"""The GenAE encoder: early-downsampling separable convolutions, a mel side input, windowed attention."""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from partita_blocks import (
    ACTIVATIONS,
    DownStage,
    FusedStages,
    LogMel,
    WindowedTransformer,
    conv,
    conv_reach,
    down_stages,
    fuse_stages,
)
from partita_core import (
    AudioSpec,
    Chain,
    ChannelLayout,
    Config,
    Encoder,
    PartitaError,
    Precision,
    Stream,
    TiledStream,
    compile_frozen,
    register,
    sum_contexts,
)
from partita_core.ranges import Extras, Frames, Heads, Layers, Samples, Width
from torch import Tensor, nn

# Frames that the late half of a stream takes at a time, in tiles of the early one: they are small, their context long.
_LATE = 8


@register("encoder/genae")
@dataclass(frozen=True)
class GenAEEncoderConfig(Config):
    """Early-downsampling separable convolutions, a mel side input and windowed attention (GenAE).

    The kinds of layers are those of arXiv 2602.15749; all sizes are ours (docs/provenance.md).

    Attributes:
        strides: downsampling of each stage; their product is the hop.
        channels: width of the stem and after each stage.
        dilations: of the residual units of a stage.
        kernel: taps of the residual units.
        separable: depthwise and pointwise residual units instead of full ones.
        early: the strided convolution before the residual units of its stage instead of behind them.
        activation: a name in `partita_blocks.ACTIVATIONS`.
        mel_stage: stages before the mel side input joins, at the rate that these leave; 0 for none.
        mel_fft: its window and FFT, samples.
        mels: its bands.
        attention_dim: width of the transformer.
        attention_layers: its blocks; 0 for none.
        heads: attention heads.
        head_dim: width of a head.
        window: frames that attention sees to either side.
        mlp_ratio: width of the MLP over `attention_dim`.
        format: how the layout is told, as a token or added to every frame.
    """

    strides: tuple[Samples, ...] = (6, 7, 8, 10)
    channels: tuple[Width, ...] = (128, 128, 256, 512, 1024)
    dilations: tuple[Samples, ...] = (1, 3, 9)
    kernel: Samples = 7
    separable: bool = True
    early: bool = True
    activation: Literal["snake_lite", "snake", "snake_beta", "elu"] = "snake_lite"
    mel_stage: Extras = 3
    mel_fft: Samples = 2048
    mels: Width = 128
    attention_dim: Width = 512
    attention_layers: Extras = 4
    heads: Heads = 8
    head_dim: Width = 64
    window: Frames = 16
    mlp_ratio: Layers = 4
    format: Literal["token", "add"] = "token"

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "GenAEEncoder":
        """Builds the encoder of audio of `audio_spec` to frames of width `out_dim`."""
        if not 0 <= self.mel_stage <= len(self.strides):
            raise PartitaError(f"mel_stage is {self.mel_stage}; the encoder has {len(self.strides)} stages")
        activation = ACTIVATIONS[self.activation]
        stages = down_stages(
            self.channels,
            self.strides,
            dilations=self.dilations,
            kernel=self.kernel,
            separable=self.separable,
            early=self.early,
            activation=activation,
        )
        mel = None
        if self.mel_stage:
            mel = MelFusion(
                channels=audio_spec.channels,
                out_dim=self.channels[self.mel_stage],
                sample_rate=audio_spec.sample_rate,
                n_fft=self.mel_fft,
                hop=prod(self.strides[: self.mel_stage]),
                num_mels=self.mels,
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
        return GenAEEncoder(
            stem=conv(audio_spec.channels, self.channels[0], 7),
            stages=stages,
            mel=mel,
            mel_stage=self.mel_stage,
            project=nn.Sequential(activation(self.channels[-1]), conv(self.channels[-1], self.attention_dim, 1)),
            transformer=transformer,
            head=conv(self.attention_dim, out_dim, 3),
            out_dim=out_dim,
            hop=prod(self.strides),
            audio_spec=audio_spec,
        )

    @classmethod
    def example(cls) -> "GenAEEncoderConfig":
        """Hop 24, a few thousand parameters."""
        return cls(
            strides=(2, 4, 3),
            channels=(8, 8, 12, 16),
            dilations=(1, 3),
            mel_stage=2,
            mel_fft=32,
            mels=8,
            attention_dim=16,
            attention_layers=1,
            heads=2,
            head_dim=8,
            window=3,
            mlp_ratio=2,
        )


class MelFusion(nn.Module):
    """Log-mel frames of each channel, at the rate of a stage, as something to add to its output.

    Large first strides lose magnitude at high frequencies; this returns it without convolutions at a high rate.
    """

    def __init__(self, *, channels: int, out_dim: int, sample_rate: int, n_fft: int, hop: int, num_mels: int) -> None:
        """Builds the branch over `channels` audio channels: bands from 0 to half the sample rate, floored at 1e-5."""
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.spectrum = LogMel(
            sample_rate=sample_rate,
            n_fft=n_fft,
            hop=hop,
            padding="same",
            num_mels=num_mels,
            f_min=0.0,
            f_max=sample_rate / 2,
            floor=1e-5,
        )
        self.conv = conv(channels * num_mels, out_dim, 3)

    def forward(self, audio: Tensor) -> Tensor:
        """`(batch, channels, hop * n)` to `(batch, out_dim, n)`."""
        return self.conv(self.spectrum(audio).flatten(1, 2).to(audio.dtype))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The samples that outputs `first` to `last` see."""
        first, last = conv_reach(first, last, 3)
        return conv_reach(first, last, self.n_fft, stride=self.hop, padding=(self.n_fft - self.hop) // 2)


class GenAEEncoder(Encoder):
    """Audio to hidden frames; see `GenAEEncoderConfig`.

    Attributes:
        fused: what runs the stem and all stages but the last after `optimize`; None where the modules do.
    """

    fused: FusedStages | None = None

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: list[DownStage],
        mel: MelFusion | None,
        mel_stage: int,
        project: nn.Module,
        transformer: WindowedTransformer,
        head: nn.Module,
        out_dim: int,
        hop: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles the layers of table 2.2: stem (kernel 7), stages, project (1), transformer, head (kernel 3)."""
        super().__init__()
        self.stem, self.stages, self.mel, self.mel_stage = stem, nn.ModuleList(stages), mel, mel_stage
        self.project, self.transformer, self.head = project, transformer, head
        self.out_dim, self.hop, self.audio_spec = out_dim, hop, audio_spec
        # Where a stream cuts: a stage at the rate of the frames sees seconds, as attention does, and costs as little.
        self._cut = max(1, mel_stage, len(stages) - 1)
        self._steps = prod(stage.stride for stage in stages[self._cut :])
        seen, (first, last) = [], (0, self._steps - 1)
        for index in range(self._cut, 0, -1):
            if mel is not None and index == mel_stage:
                seen.append(mel.reach(first, last))
            first, last = stages[index - 1].reach(first, last)
        seen.append(conv_reach(first, last, 7))
        self._early = (-(min(reach[0] for reach in seen) // hop), max(reach[1] for reach in seen) // hop)
        first, last = transformer.reach(*conv_reach(0, 0, 3))
        for stage in reversed(stages[self._cut :]):
            first, last = stage.reach(first, last)
        self._late = (-(first // self._steps), last // self._steps)
        self.context = sum_contexts(self._early, self._late)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` and layouts `(batch,)` to `(batch, out_dim, frames)`."""
        return self._attend(self._convolve(audio), layout)

    def stream(self, layout: Tensor, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """As `Encoder.stream`, in two: what is dear need not run again on the seconds that the rest sees."""
        convolve = TiledStream(
            self._convolve,
            units_in=self.hop,
            units_out=self._steps,
            context=self._early,
            hop=self.hop,
            width=width,
        )
        attend = TiledStream(
            lambda x: self._attend(x, layout.to(x.device)),
            units_in=self._steps,
            units_out=1,
            context=self._late,
            hop=self.hop,
            width=_LATE * width,
        )
        return Chain(convolve, attend)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """As `Role.optimize`; on a CPU, unless it is to be compiled, stem and early stages become fused kernels.

        They need early, separable stages with SnakeLite and kernel 7, Linux on x86-64 with AVX2 or AVX-512, and a C++
        compiler, which builds them in a few seconds, once for all processes. Where one of these is missing the encoder
        stays as it is, and `partita_blocks.why_no_kernels` tells why. They serve calls in float32 without gradients.

        With "bf16" all but the operands of their matrix products stays in float32; a CPU that does not multiply
        bfloat16 has them in float32, too. Without kernels, all but the stem and the mel side input is in bfloat16.
        """
        early = nn.ModuleList(self.stages[: self._cut])
        self.fused = None if compile else fuse_stages(self.stem, early, precision=precision)
        if self.fused is None and precision == "bf16":
            # Not what sees the audio: rounded to eight bits, it has a floor that logarithms of bands make much of.
            for part in (self.stages, self.project, self.transformer, self.head):
                part.to(torch.bfloat16)
        if compile:
            compile_frozen(*self.stages)  # not `forward`, which a stream does not call

    def _convolve(self, audio: Tensor) -> Tensor:
        """Audio to the rate at which a stream is cut."""
        side = None if self.mel is None else self.mel(audio)
        if self.fused is not None and self.fused.serves(audio):
            return self.fused(audio, side=side, side_stage=self.mel_stage)
        x = self.stem(audio).to(self._dtype())
        for index in range(self._cut):
            x = self.stages[index](x)
            if side is not None and index + 1 == self.mel_stage:
                x = x + side.to(x.dtype)
        return x

    def _dtype(self) -> torch.dtype:
        """Of what is behind the stem, which `optimize` may change."""
        return next(self.project.parameters()).dtype

    def _attend(self, x: Tensor, layout: Tensor) -> Tensor:
        """The rest."""
        for index in range(self._cut, len(self.stages)):
            x = self.stages[index](x)
        return self.head(self.transformer(self.project(x), layout))
