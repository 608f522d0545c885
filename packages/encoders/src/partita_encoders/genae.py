"""GenAE encoder: separable convolutions with early downsampling, a log-mel input and windowed attention."""

from math import prod

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
    Encoder,
    PartitaError,
    Precision,
    Stream,
    TiledStream,
    compile_frozen,
    config_of,
    register,
    sum_contexts,
)
from partita_core.ranges import Extras, Frames, Heads, Layers, Samples, Width
from torch import Tensor, nn

from ._common import ActivationName

# Tiles of the second half of a stream, in tiles of the first: they are small, and their context is long.
_LATE_TILES = 8


class MelFusion(nn.Module):
    """Projection of the log-mel spectrum of each audio channel, to add to the output of a stage at its rate.

    Large first strides lose magnitudes at high frequencies; this restores them without convolutions at a high rate.

    Args:
        channels: number of audio channels.
        out_dim: width of the stage.
        sample_rate: samples per second; bands span 0 to half of it.
        n_fft: window and FFT size in samples.
        hop: samples per step of the stage.
        num_mels: number of mel bands; magnitudes are floored at 1e-5.
    """

    def __init__(self, *, channels: int, out_dim: int, sample_rate: int, n_fft: int, hop: int, num_mels: int) -> None:
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
        """Map `(batch, channels, hop * n)` to `(batch, out_dim, n)`."""
        return self.conv(self.spectrum(audio).flatten(1, 2).to(audio.dtype))

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """First and last sample that outputs `first` to `last` depend on."""
        first, last = conv_reach(first, last, 3)
        return conv_reach(first, last, self.n_fft, stride=self.hop, padding=(self.n_fft - self.hop) // 2)


@register(
    "encoder/genae",
    example={
        "strides": (2, 4, 3),
        "channels": (8, 8, 12, 16),
        "dilations": (1, 3),
        "mel_stage": 2,
        "mel_fft": 32,
        "mels": 8,
        "attention_dim": 16,
        "attention_layers": 1,
        "heads": 2,
        "head_dim": 8,
        "window": 3,
        "mlp_ratio": 2,
    },
)
class GenAEEncoder(Encoder):
    """Separable convolutions with early downsampling, a log-mel input and windowed attention (GenAE).

    The kinds of layers are those of arXiv 2602.15749; all sizes are ours (docs/provenance.md). The channel layout
    enters the attention layers as a format token.

    Args:
        out_dim: width of the hidden frames.
        audio_spec: format of the input audio.
        strides: downsampling factor of each stage; their product is the hop.
        channels: width of the stem and after each stage.
        dilations: dilations of the residual units of each stage.
        kernel: kernel size of the residual units.
        separable: use depthwise-separable residual units instead of full convolutions.
        early: place the strided convolution of a stage before its residual units instead of after them.
        activation: activation function, a name in `partita_blocks.ACTIVATIONS`.
        mel_stage: number of stages before the log-mel input is added; 0 for no log-mel input.
        mel_fft: window and FFT size of the log-mel input in samples.
        mels: number of mel bands.
        attention_dim: width of the transformer.
        attention_layers: number of transformer blocks; 0 for none.
        heads: number of attention heads.
        head_dim: width of each attention head.
        window: attention range in frames to either side.
        mlp_ratio: width of the MLP, in multiples of `attention_dim`.

    Attributes:
        fused: fused kernels that run the stem and all stages but the last after `optimize`, or None.

    Raises:
        PartitaError: `mel_stage` exceeds the number of stages, or `channels` does not have one entry more than
            `strides`.
    """

    fused: FusedStages | None = None

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        strides: tuple[Samples, ...] = (6, 7, 8, 10),
        channels: tuple[Width, ...] = (128, 128, 256, 512, 1024),
        dilations: tuple[Samples, ...] = (1, 3, 9),
        kernel: Samples = 7,
        separable: bool = True,
        early: bool = True,
        activation: ActivationName = "snake_lite",
        mel_stage: Extras = 3,
        mel_fft: Samples = 2048,
        mels: Width = 128,
        attention_dim: Width = 512,
        attention_layers: Extras = 4,
        heads: Heads = 8,
        head_dim: Width = 64,
        window: Frames = 16,
        mlp_ratio: Layers = 4,
    ) -> None:
        super().__init__()
        if mel_stage > len(strides):
            raise PartitaError(f"mel_stage is {mel_stage}; the encoder has {len(strides)} stages")
        self.out_dim, self.hop, self.audio_spec = out_dim, prod(strides), audio_spec
        # Layers are built in this order, which decides the weights that a seed gives, and registered in that of the
        # forward pass below.
        stages = down_stages(
            channels,
            strides,
            dilations=dilations,
            kernel=kernel,
            separable=separable,
            early=early,
            activation=ACTIVATIONS[activation],
        )
        mel = None
        if mel_stage:
            mel = MelFusion(
                channels=audio_spec.channels,
                out_dim=channels[mel_stage],
                sample_rate=audio_spec.sample_rate,
                n_fft=mel_fft,
                hop=prod(strides[:mel_stage]),
                num_mels=mels,
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
        self.stem = conv(audio_spec.channels, channels[0], 7)
        self.stages, self.mel, self.mel_stage = nn.ModuleList(stages), mel, mel_stage
        self.project = nn.Sequential(ACTIVATIONS[activation](channels[-1]), conv(channels[-1], attention_dim, 1))
        self.transformer = transformer
        self.head = conv(attention_dim, out_dim, 3)
        # A stream runs in two halves: `_convolve` up to `cut` stages, expensive and with a short context, and `_attend`
        # from there, cheap and with a context of seconds. Between them, a frame is `steps` vectors.
        self._cut = max(1, mel_stage, len(stages) - 1)
        self._steps = prod(strides[self._cut :])
        self._early, self._late = self._contexts(stages)
        self.context = sum_contexts(self._early, self._late)

    def _contexts(self, stages: list[DownStage]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Contexts of `_convolve` and `_attend` in frames."""
        seen, (first, last) = [], (0, self._steps - 1)
        for index in range(self._cut, 0, -1):
            if self.mel is not None and index == self.mel_stage:
                seen.append(self.mel.reach(first, last))
            first, last = stages[index - 1].reach(first, last)
        seen.append(conv_reach(first, last, 7))
        early = (-(min(reach[0] for reach in seen) // self.hop), max(reach[1] for reach in seen) // self.hop)
        first, last = self.transformer.reach(*conv_reach(0, 0, 3))
        for stage in reversed(stages[self._cut :]):
            first, last = stage.reach(first, last)
        return early, (-(first // self._steps), last // self._steps)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        return self._attend(self._convolve(audio), layout)

    def stream(self, layout: Tensor, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """Return a stream, as `Encoder.stream` does.

        Convolutions and attention are streamed separately, so that the expensive convolutions are not recomputed over
        attention's seconds of context.
        """
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
            width=_LATE_TILES * width,
        )
        return Chain(convolve, attend)

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Prepare for inference, as `Role.optimize` does.

        On a CPU and without `compile`, fused kernels replace the stem and the early stages. They require early,
        separable stages with SnakeLite and kernel size 7, Linux on x86-64 with AVX2 or AVX-512, and a C++ compiler,
        which builds them in a few seconds, once for all processes. If a requirement is missing, the modules run
        unchanged, and `partita_blocks.why_no_kernels` gives the reason. The kernels serve calls in float32 without
        gradients.

        With "bf16" and kernels, only the operands of matrix products are bfloat16, and float32 on CPUs that cannot
        multiply bfloat16. Without kernels, everything but the stem and the log-mel input is bfloat16.
        """
        early = nn.ModuleList(self.stages[: self._cut])
        self.fused = None if compile else fuse_stages(self.stem, early, precision=precision)
        if self.fused is None and precision == "bf16":
            # The stem and the log-mel input stay in float32: rounding noise would dominate quiet mel bands.
            for part in (self.stages, self.project, self.transformer, self.head):
                part.to(torch.bfloat16)
        if compile:
            compile_frozen(*self.stages)  # instead of `forward`, which a stream does not call

    def _convolve(self, audio: Tensor) -> Tensor:
        """Map audio to the input of `_attend`, `(batch, width, steps * frames)`."""
        side = None if self.mel is None else self.mel(audio)
        if self.fused is not None and self.fused.serves(audio):
            return self.fused(audio, side=side, side_stage=self.mel_stage)
        x = self.stem(audio).to(next(self.project.parameters()).dtype)  # the dtype that `optimize` chose
        for index in range(self._cut):
            x = self.stages[index](x)
            if side is not None and index + 1 == self.mel_stage:
                x = x + side.to(x.dtype)
        return x

    def _attend(self, x: Tensor, layout: Tensor) -> Tensor:
        """Map the output of `_convolve` to hidden frames."""
        for index in range(self._cut, len(self.stages)):
            x = self.stages[index](x)
        return self.head(self.transformer(self.project(x), layout))


GenAEEncoderConfig = config_of(GenAEEncoder)
