"""Summary encoder: chunks of audio to sets of vectors, each of which can summarize the entire chunk (Music2Latent2)."""

from typing import Annotated, Literal

import torch
from partita_blocks import BatchNorm, ChunkTransformer, CompandedSTFT, Conv2d, GridToVectors, Patchifier, patch_grid
from partita_core import AudioSpec, Encoder, PartitaError, config_of, register
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


@register(
    "encoder/summary",
    example={
        "n_fft": 24,
        "stft_hop": 6,
        "chunk_frames": 8,
        "channels": (4, 8, 16),
        "strides": ((2, 2), (2, 2)),
        "blocks": (1, 2, 1),
        "layers": 2,
        "heads": 2,
        "head_dim": 8,
        "tokens_per_frame": 2,
        "registers": 1,
        "direct": 2,
        "magnitudes": True,
    },
)
class SummaryEncoder(Encoder):
    """Convolutions and a transformer from chunks of a companded spectrogram to summary embeddings (Music2Latent2).

    The architecture is that of arXiv 2501.17578, with the sizes of CoDiCodec (arXiv 2509.09836), since its own are not
    known. A frame is a chunk of `chunk_frames * stft_hop` samples. Chunks are encoded separately; only the windows of
    a chunk's spectrogram extend a little into the neighboring chunks.

    Args:
        out_dim: width of the hidden frames.
        audio_spec: format of the input audio. The network does not depend on the channel layout: use a single layout.
        n_fft: window and FFT size of the spectrogram in samples.
        stft_hop: hop of the spectrogram in samples.
        companding: compand magnitudes ("polar"), or real and imaginary parts separately ("component").
        companding_scale: scale of the companding; see `CompandedSTFT`.
        companding_exponent: exponent of the companding; see `CompandedSTFT`.
        chunk_frames: number of spectrogram frames per chunk.
        channels: width of each level of convolutions, from full resolution on; the last is that of the transformer.
        strides: (frequency, time) downsampling factors between the levels.
        blocks: number of residual blocks of each level.
        layers: number of transformer blocks.
        heads: number of attention heads.
        head_dim: width of each attention head.
        tokens_per_frame: number of summary embeddings per chunk (K).
        registers: number of additional learned tokens, which are dropped after the transformer.
        zero_init: initialize residual branches to zero, as in CoDiCodec, so that all latents start equal.

        Ours (not published):
        tilt: boost of high frequencies before the network, in dB per octave; 0 for none.
        tokens: "summary" for learned queries, or an ordered variant for comparison with one latent per time column of
            the patch grid: the mean of the column's tokens, with attention to the entire chunk ("ordered") or limited
            to the column ("local").
        direct: channels per position of the patch grid that a linear map sends to the latents, in parallel to
            attention: to all summary embeddings, or to the latent of the same column in the ordered variants. None
            for no such map. Attention learns only late in training to keep positions apart; in runs of some thousand
            steps, this map carries local information.
        out_std: standard deviation of the initial weights of the last layer; 0 in CoDiCodec.
        magnitudes: add log-magnitudes to the real and imaginary parts at the input. Averages of the parts over a patch
            contain no information about loudness.
        norm_decay: decay per training step of the running statistics of a batch norm of the output; None for no batch
            norm, as in CoDiCodec. Without it, what all audio has in common grows first: after some thousand steps all
            latents are equal, and the decoder ignores them.

    Raises:
        PartitaError: the strides do not divide the spectrogram of a chunk, or `tokens_per_frame` is not the number of
            columns of an ordered variant.
    """

    def __init__(
        self,
        out_dim: int,
        audio_spec: AudioSpec,
        *,
        n_fft: Samples = 2048,
        stft_hop: Samples = 512,
        companding: Literal["polar", "component"] = "polar",
        companding_scale: Positive = 0.34,
        companding_exponent: Annotated[float, Range(0, 1, open_low=True)] = 0.65,
        tilt: Finite = 0.0,
        chunk_frames: Frames = 64,
        channels: tuple[Width, ...] = (64, 128, 256, 512),
        strides: tuple[tuple[Samples, Samples], ...] = ((4, 2), (2, 2), (2, 2)),
        blocks: tuple[Layers, ...] = (3, 3, 3, 1),
        layers: Layers = 12,
        heads: Heads = 4,
        head_dim: Width = 128,
        tokens: Literal["summary", "ordered", "local"] = "summary",
        tokens_per_frame: Width = 8,
        registers: Extras = 0,
        direct: Width | None = None,
        out_std: NonNegative = 0.02,
        zero_init: bool = False,
        magnitudes: bool = False,
        norm_decay: Proportion | None = 0.99,
    ) -> None:
        super().__init__()
        self.out_dim, self.hop, self.audio_spec = out_dim, chunk_frames * stft_hop, audio_spec
        self.tokens, self.tokens_per_frame, self.ordered = tokens, tokens_per_frame, tokens != "summary"
        self.chunk_frames, self.magnitudes = chunk_frames, magnitudes
        self.queries = 0 if self.ordered else tokens_per_frame
        self.stft = CompandedSTFT(
            n_fft=n_fft,
            hop=stft_hop,
            companding=companding,
            scale=companding_scale,
            exponent=companding_exponent,
            tilt=tilt,
        )
        reach = -(-self.stft.padding // self.hop)
        self.context = (reach, reach)
        rows, columns = patch_grid(self.stft.bins, chunk_frames, strides)
        if self.ordered and tokens_per_frame != columns:
            raise PartitaError(
                f"{tokens} tokens are one per column, of which a chunk has {columns}, "
                f"but tokens_per_frame is {tokens_per_frame}; set it to {columns}"
            )
        # Layers are built in this order, which decides the weights that a seed gives.
        dim = channels[-1]
        patchifier = Patchifier(
            channels=channels, strides=strides, blocks=blocks, condition_dim=None, dropout=0.0, zero_init=zero_init
        )
        transformer = ChunkTransformer(
            dim,
            tokens=(rows if tokens == "local" else rows * columns) + self.queries + registers,
            chunks=1,
            layers=layers,
            heads=heads,
            head_dim=head_dim,
            condition_dim=None,
            dropout=0.0,
            zero_init=zero_init,
        )
        shortcut = None
        if direct is not None:
            positions, vectors = (rows, 1) if self.ordered else (rows * columns, tokens_per_frame)
            shortcut = GridToVectors(dim, positions=positions, vectors=vectors, width=direct)
            if zero_init:
                nn.init.zeros_(shortcut.across.weight)
        self.stem = Conv2d((3 if magnitudes else 2) * audio_spec.channels, channels[0], 3, padding=1)
        self.patchifier, self.transformer, self.direct = patchifier, transformer, shortcut
        # Even companded magnitudes fall by a factor of 40 from low to high frequencies.
        self.gains = nn.Parameter(torch.ones(self.stft.bins, 1))
        learned = self.queries + registers
        self.learned = nn.Parameter(torch.randn(learned, dim) * dim**-0.5) if learned else None
        self.norm = nn.LayerNorm(dim, eps=1e-4, bias=False)
        self.head = nn.Linear(dim, out_dim)
        nn.init.normal_(self.head.weight, std=out_std)
        nn.init.zeros_(self.head.bias)
        self.batch_norm = None
        if norm_decay is not None:
            self.batch_norm = BatchNorm((tokens_per_frame, out_dim), decay=norm_decay)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` to `(batch, out_dim, frames * K)`; layouts are not used."""
        x = self.stft(audio)
        if self.magnitudes:
            x = torch.cat([x, _log_magnitudes(x)], dim=1)
        x = x.to(audio.dtype).unflatten(-1, (-1, self.chunk_frames))
        batch = x.shape[0]
        chunks = x.movedim(3, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        grid = self.patchifier(self.stem(chunks) * self.gains)[-1].permute(0, 2, 3, 1)
        hidden = self._attend(grid)
        if self.direct is not None:
            hidden = hidden + self._shortcut(self.direct, grid)
        hidden = self.head(self.norm(hidden))
        if self.batch_norm is not None:
            # Statistics exclude chunks of digital silence, such as the padding of short files.
            counted = None
            if self.training:
                counted = (audio != 0).unflatten(-1, (-1, self.hop)).any(dim=3).any(dim=1).flatten()
            hidden = self.batch_norm(hidden, counted).to(hidden.dtype)
        return hidden.unflatten(0, (batch, -1)).flatten(1, 2).transpose(1, 2)

    def _attend(self, grid: Tensor) -> Tensor:
        """Transform the patch grid `(chunks, rows, columns, dim)` to `(chunks, K, dim)`."""
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

    def _shortcut(self, direct: GridToVectors, grid: Tensor) -> Tensor:
        """Map the patch grid `(chunks, rows, columns, dim)` linearly to `(chunks, K, dim)`."""
        if not self.ordered:
            return direct(grid.flatten(1, 2))
        return direct(grid.transpose(1, 2).flatten(0, 1)).squeeze(1).unflatten(0, (grid.shape[0], -1))


SummaryEncoderConfig = config_of(SummaryEncoder)


def _log_magnitudes(x: Tensor) -> Tensor:
    """Log-magnitudes, about -3.5 to 1, of real and imaginary parts `(batch, 2 * channels, bins, frames)`."""
    return (x.unflatten(1, (-1, 2)).square().sum(2) + 1e-6).log() / 4
