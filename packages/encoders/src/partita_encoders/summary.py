"""The summary encoder: a chunk of audio becomes a set of vectors, each of which may say something of the whole."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from partita_blocks import BatchNorm, ChunkTransformer, CompandedSTFT, GridToVectors, Patchifier, patch_grid
from partita_core import AudioSpec, Config, Encoder, PartitaError, register
from partita_core.ranges import (
    Extras,
    Finite,
    Frames,
    Heads,
    Layers,
    NonNegative,
    Positive,
    Proportion,
    Range,
    Samples,
    Width,
)
from torch import Tensor, nn

Tokens = Literal["summary", "ordered", "local"]


@register("encoder/summary")
@dataclass(frozen=True)
class SummaryEncoderConfig(Config):
    """Chunks of a companded spectrogram through convolutions and a transformer to K summary embeddings (Music2Latent2).

    From arXiv 2501.17578, with the sizes of CoDiCodec (arXiv 2509.09836), since its own are not known. A frame is a
    chunk of `chunk_frames * stft_hop` samples. The layout has no input: give audio of one.

    `tokens` also offers two ordered variants, to compare with: "ordered" has the same network, but the tokens of each
    column (a time slot) are averaged, so there are as many latents as columns, and each sees the whole chunk; in
    "local", besides, attention is limited to the column, as in conventional encoders.

    Attributes:
        n_fft: window and FFT of the spectrogram, samples.
        stft_hop: samples from frame to frame of it.
        companding: of magnitudes ("polar"), or of real and imaginary parts each ("component").
        companding_scale: see `CompandedSTFT`.
        companding_exponent: see `CompandedSTFT`.
        tilt: dB an octave by which high frequencies are raised before; ours, off at 0.
        chunk_frames: frames of the spectrogram in a chunk.
        channels: width of each level of convolutions, from full resolution on; the last is the transformer's.
        strides: frequencies and frames that become one between the levels.
        blocks: residual blocks of each level.
        layers: blocks of the transformer.
        heads: attention heads.
        head_dim: width of a head.
        tokens: a set of learned queries, or the variants above.
        tokens_per_frame: latents of a chunk (K).
        registers: further learned tokens, which the transformer may use and which are dropped.
        direct: channels of every place of the map that one matrix takes to the latents beside the transformer, to all
            summary embeddings, or to that of its column in the variants, which is ours; None for no such matrix.
            Attention separates places only late in training; in runs of some thousand steps, what latents hold of
            single places goes this way.
        out_std: standard deviation of the last layer's weights at first; 0 in CoDiCodec, where all latents begin equal.
        zero_init: residual branches start at zero, as in CoDiCodec, so that the latents are the same for all audio
            at first.
        magnitudes: whether the network gets log-magnitudes beside real and imaginary parts, which is ours. Averages of
            the parts over a patch hold nothing of loudness.
        norm_decay: what the running statistics of a batch norm of the latents, before the bottleneck, keep of
            themselves in a training step, which is ours; None leaves it out, as in CoDiCodec. Without it what is the
            same for all audio grows first: after some thousand steps the latents are equal, and the decoder ignores
            them.
    """

    n_fft: Samples = 2048
    stft_hop: Samples = 512
    companding: Literal["polar", "component"] = "polar"
    companding_scale: Positive = 0.34
    companding_exponent: Annotated[float, Range(0, 1, open_low=True)] = 0.65
    tilt: Finite = 0.0
    chunk_frames: Frames = 64
    channels: tuple[Width, ...] = (64, 128, 256, 512)
    strides: tuple[tuple[Samples, Samples], ...] = ((4, 2), (2, 2), (2, 2))
    blocks: tuple[Layers, ...] = (3, 3, 3, 1)
    layers: Layers = 12
    heads: Heads = 4
    head_dim: Width = 128
    tokens: Tokens = "summary"
    tokens_per_frame: Width = 8
    registers: Extras = 0
    direct: Width | None = None
    out_std: NonNegative = 0.02
    zero_init: bool = False
    magnitudes: bool = False
    norm_decay: Proportion | None = 0.99

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "SummaryEncoder":
        """Builds the encoder of audio of `audio_spec` to frames of width `out_dim`."""
        stft = CompandedSTFT(
            n_fft=self.n_fft,
            hop=self.stft_hop,
            companding=self.companding,
            scale=self.companding_scale,
            exponent=self.companding_exponent,
            tilt=self.tilt,
        )
        rows, columns = patch_grid(stft.bins, self.chunk_frames, self.strides)
        if self.tokens != "summary" and self.tokens_per_frame != columns:
            raise PartitaError(
                f"{self.tokens} tokens are one a column, of which a chunk has {columns}, "
                f"but tokens_per_frame is {self.tokens_per_frame}; make it {columns}"
            )
        patchifier = Patchifier(
            channels=self.channels,
            strides=self.strides,
            blocks=self.blocks,
            condition_dim=None,
            dropout=0.0,
            zero_init=self.zero_init,
        )
        summary = self.tokens == "summary"
        seen = rows if self.tokens == "local" else rows * columns
        queries = self.tokens_per_frame if summary else 0
        transformer = ChunkTransformer(
            self.channels[-1],
            tokens=seen + queries + self.registers,
            chunks=1,
            layers=self.layers,
            heads=self.heads,
            head_dim=self.head_dim,
            condition_dim=None,
            dropout=0.0,
            zero_init=self.zero_init,
        )
        direct = None
        if self.direct is not None:
            places, vectors = (rows * columns, self.tokens_per_frame) if summary else (rows, 1)
            direct = GridToVectors(self.channels[-1], positions=places, vectors=vectors, width=self.direct)
            if self.zero_init:
                nn.init.zeros_(direct.across.weight)
        return SummaryEncoder(
            stft=stft,
            stem=nn.Conv2d((3 if self.magnitudes else 2) * audio_spec.channels, self.channels[0], 3, padding=1),
            patchifier=patchifier,
            transformer=transformer,
            direct=direct,
            dim=self.channels[-1],
            chunk_frames=self.chunk_frames,
            tokens=self.tokens,
            tokens_per_frame=self.tokens_per_frame,
            registers=self.registers,
            out_std=self.out_std,
            magnitudes=self.magnitudes,
            norm_decay=self.norm_decay,
            out_dim=out_dim,
            audio_spec=audio_spec,
        )

    @classmethod
    def example(cls) -> "SummaryEncoderConfig":
        """Hop 48, 2 tokens a frame, a few thousand parameters."""
        return cls(
            n_fft=24,
            stft_hop=6,
            chunk_frames=8,
            channels=(4, 8, 16),
            strides=((2, 2), (2, 2)),
            blocks=(1, 2, 1),
            layers=2,
            heads=2,
            head_dim=8,
            tokens_per_frame=2,
            registers=1,
            direct=2,
            magnitudes=True,
        )


class SummaryEncoder(Encoder):
    """Audio to hidden frames; see `SummaryEncoderConfig`.

    Chunks do not see each other; a chunk's spectrogram reaches a little into its neighbours' samples.
    """

    def __init__(
        self,
        *,
        stft: CompandedSTFT,
        stem: nn.Module,
        patchifier: Patchifier,
        transformer: ChunkTransformer,
        direct: GridToVectors | None,
        dim: int,
        chunk_frames: int,
        tokens: Tokens,
        tokens_per_frame: int,
        registers: int,
        out_std: float,
        magnitudes: bool,
        norm_decay: float | None,
        out_dim: int,
        audio_spec: AudioSpec,
    ) -> None:
        """Assembles spectrogram, stem (kernel 3), gains, patchifier, transformer, norm, head and batch norm."""
        super().__init__()
        self.stft, self.stem, self.patchifier, self.transformer = stft, stem, patchifier, transformer
        self.direct, self.magnitudes = direct, magnitudes
        self.chunk_frames, self.tokens, self.tokens_per_frame = chunk_frames, tokens, tokens_per_frame
        self.ordered = tokens != "summary"
        # Loudness falls by a factor of 40 from low to high frequencies, even companded.
        self.gains = nn.Parameter(torch.ones(stft.bins, 1))
        self.queries = tokens_per_frame if tokens == "summary" else 0
        learned = self.queries + registers
        self.learned = nn.Parameter(torch.randn(learned, dim) * dim**-0.5) if learned else None
        self.norm = nn.LayerNorm(dim, eps=1e-4, bias=False)
        self.head = nn.Linear(dim, out_dim)
        nn.init.normal_(self.head.weight, std=out_std)
        nn.init.zeros_(self.head.bias)
        shape = (tokens_per_frame, out_dim)
        self.batch_norm = None if norm_decay is None else BatchNorm(shape, decay=norm_decay)
        self.out_dim, self.hop, self.audio_spec = out_dim, chunk_frames * stft.hop, audio_spec
        reach = -(-stft.padding // self.hop)
        self.context = (reach, reach)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` to `(batch, out_dim, frames * K)`; layouts `(batch,)` change nothing."""
        x = self.stft(audio)
        if self.magnitudes:
            x = torch.cat([x, _log_magnitudes(x)], dim=1)
        x = x.to(audio.dtype).unflatten(-1, (-1, self.chunk_frames))
        batch = x.shape[0]
        chunks = x.movedim(3, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        grid = self.patchifier(self.stem(chunks) * self.gains)[-1].permute(0, 2, 3, 1)
        hidden = self._mix(grid)
        if self.direct is not None:
            hidden = hidden + self._straight(self.direct, grid)
        hidden = self.head(self.norm(hidden))
        if self.batch_norm is not None:
            # Chunks of digital silence, such as the padding of short files, are in no statistic.
            counted = None
            if self.training:
                counted = (audio != 0).unflatten(-1, (-1, self.hop)).any(dim=3).any(dim=1).flatten()
            hidden = self.batch_norm(hidden, counted).to(hidden.dtype)
        return hidden.unflatten(0, (batch, -1)).flatten(1, 2).transpose(1, 2)

    def _mix(self, grid: Tensor) -> Tensor:
        """The grid of tokens `(chunks, rows, columns, dim)`, transformed, to `(chunks, K, dim)`."""
        rows, columns = grid.shape[1:3]
        tokens = grid.transpose(1, 2).flatten(0, 1) if self.tokens == "local" else grid.flatten(1, 2)
        count = tokens.shape[1]
        if self.learned is not None:
            learned = self.learned.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([tokens, learned], dim=1)
        mixed = self.transformer(tokens)
        if self.tokens == "summary":
            return mixed[:, count : count + self.queries]
        if self.tokens == "ordered":
            return mixed[:, :count].unflatten(1, (rows, columns)).mean(1)
        return mixed[:, :count].mean(1).unflatten(0, (-1, columns))

    def _straight(self, direct: GridToVectors, grid: Tensor) -> Tensor:
        """The same grid by the matrix, `(chunks, K, dim)`."""
        if self.tokens == "summary":
            return direct(grid.flatten(1, 2))
        return direct(grid.transpose(1, 2).flatten(0, 1)).squeeze(1).unflatten(0, (grid.shape[0], -1))


def _log_magnitudes(x: Tensor) -> Tensor:
    """Of real and imaginary parts `(batch, 2 * channels, bins, frames)`, one channel for two; about -3.5 to 1."""
    return (x.unflatten(1, (-1, 2)).square().sum(2) + 1e-6).log() / 4
