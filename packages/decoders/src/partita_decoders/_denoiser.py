"""Networks of the consistency decoder: upsampling of latents to feature maps, and denoising of spectrograms."""

import torch
from partita_blocks import (
    AdaptiveGroupNorm,
    ChunkTransformer,
    Conv2d,
    Depatchifier,
    FrequencyGains,
    NoiseEmbedding,
    Patchifier,
    VectorsToGrid,
)
from partita_core import PartitaError
from torch import Tensor, nn
from torch.nn import functional as F

from ._envelope import FLOOR

# Mean of the logarithms of companded magnitudes above the floor, and their scale to about unit variance.
_LOG_MEAN, _LOG_SCALE = -2.5, 0.5


class Upsampler(nn.Module):
    """Latents of a chunk to feature maps: learned vectors per frequency attend to the latents.

    Args:
        latent_dim: width of the latents.
        dim: width of the tokens.
        grid: rows and columns of the coarsest feature map.
        latents: number of latents per chunk.
        registers: number of additional learned tokens.
        direct: width of a linear map from latents to the coarsest feature map, or None for no such map (ours, not
            published).
        local: whether that map computes each column from the latents of its time only.
        transformer: transformer over positions, latents and registers.
        depatchifier: convolutions from the coarsest feature map to full resolution.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        dim: int,
        grid: tuple[int, int],
        latents: int,
        registers: int,
        direct: int | None,
        local: bool,
        transformer: ChunkTransformer,
        depatchifier: Depatchifier,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.project = nn.Linear(latent_dim, dim)
        self.mask = nn.Parameter(torch.randn(grid[0], 1, dim) * dim**-0.5)
        self.registers = _registers(registers, dim)
        self.direct, self.parts = None, grid[1] if local else 1
        if latents % self.parts:
            raise PartitaError(f"{latents} latents per chunk do not divide into {grid[1]} columns; set local=false")
        if direct is not None:
            sizes = {"vectors": latents // self.parts, "positions": grid[0] * grid[1] // self.parts}
            self.direct = VectorsToGrid(dim, vector_dim=latent_dim, width=direct, **sizes)
        self.transformer, self.depatchifier = transformer, depatchifier

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Map latents `(chunks, latents, latent_dim)` to the output of each block, from full resolution on."""
        mask = self.mask.expand(-1, self.grid[1], -1).flatten(0, 1).to(latents.dtype)
        positions = mask.expand(latents.shape[0], -1, -1)
        if self.direct is not None:
            direct = self.direct(latents.unflatten(1, (self.parts, -1)).flatten(0, 1))
            # Each part has the rows of its columns; positions are row by row.
            direct = direct.unflatten(0, (-1, self.parts)).unflatten(2, (self.grid[0], -1)).transpose(1, 2)
            positions = positions + direct.flatten(1, 3)
        x = self.transformer(_join([positions, self.project(latents)], self.registers))
        return self.depatchifier(_as_map(x, self.grid))[::-1]


class MeanFeatures(nn.Module):
    """Features of the spectrogram of a mean at full resolution: real and imaginary parts, and log-magnitudes.

    Args:
        channels: number of audio channels.
        width: width of the features.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Zeros at the borders of a chunk would be audible as seams.
        self.inner = nn.Conv2d(3 * channels, width, 3, padding=1, padding_mode="replicate")
        self.outer = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")

    def forward(self, mean: Tensor) -> Tensor:
        """Map spectrograms `(chunks, 2 * channels, bins, frames)` to `(chunks, width, bins, frames)`."""
        logs = mean.unflatten(1, (-1, 2)).square().sum(2).add(FLOOR**2).log() / 2
        x = torch.cat([mean, _LOG_SCALE * (logs - _LOG_MEAN)], dim=1).to(self.inner.weight.dtype)
        return self.outer(F.silu(self.inner(x.contiguous(memory_format=torch.channels_last))))


class Denoiser(nn.Module):
    """Denoising network: convolutions within each chunk, and attention to the chunk before at the coarsest level.

    The first and last layer and the embedding of the noise level are never autocast, so that all blocks add to a
    residual sum in float32. Late in training, student and teacher differ by less than the resolution of 16-bit types,
    and rounding at both ends would dominate that difference.

    Args:
        channels: number of channels of the spectrograms.
        width: width of the first level.
        dim: width of the last level.
        bins: number of frequencies.
        condition_dim: width of the embedding of the noise level.
        registers: number of additional learned tokens per chunk.
        patchifier: convolutions from full resolution to the coarsest level.
        transformer: transformer over all tokens of the chunks.
        depatchifier: convolutions from the coarsest level to full resolution.
    """

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        dim: int,
        bins: int,
        condition_dim: int,
        registers: int,
        patchifier: Patchifier,
        transformer: ChunkTransformer,
        depatchifier: Depatchifier,
    ) -> None:
        super().__init__()
        self.embedding = NoiseEmbedding(condition_dim)
        self.gains = FrequencyGains(condition_dim, bins)
        self.stem = Conv2d(channels, width, 3, padding=1)
        self.registers = _registers(registers, dim)
        self.patchifier, self.transformer, self.depatchifier = patchifier, transformer, depatchifier
        self.norm = AdaptiveGroupNorm(width, condition_dim=condition_dim)
        self.head = Conv2d(width, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, sigma: Tensor, maps: list[Tensor], latents: Tensor | None) -> Tensor:
        """Denoise w chunks.

        Args:
            x: scaled spectrograms `(batch * w, channels, bins, frames)`.
            sigma: noise level of each chunk, `(batch, w)`.
            maps: feature maps to merge before each block of the patchifier, each `(batch * w, ...)`.
            latents: additional tokens `(batch * w, latents, dim)`, or None.

        Returns:
            Output of the shape of `x`.
        """
        chunks, dtype = sigma.shape[1], self.head.weight.dtype
        with _not_autocast(x):
            sinusoids, condition = self.embedding(sigma)
            entering, leaving = self.gains(sinusoids.flatten(0, 1))
            each = condition.flatten(0, 1)
            x = self.stem(x.to(dtype).contiguous(memory_format=torch.channels_last)) * entering
        down = self.patchifier(x, features=maps, condition=each)
        grid = down[-1].shape[-2:]
        tokens = [down[-1].permute(0, 2, 3, 1).flatten(1, 2), *([] if latents is None else [latents])]
        tokens = _join(tokens, self.registers)
        tokens = self.transformer(tokens.unflatten(0, (-1, chunks)).flatten(1, 2), condition)
        tokens = tokens.unflatten(1, (chunks, -1)).flatten(0, 1)
        up = self.depatchifier(_as_map(tokens, grid), skips=down[::-1], condition=each)
        with _not_autocast(x):
            return self.head(self.norm(up[-1].to(dtype), each) * leaving)


def _not_autocast(x: Tensor) -> torch.autocast:
    """Context that disables autocast, so that layers run in the dtype of their weights."""
    return torch.autocast(x.device.type, enabled=False)


def _registers(count: int, dim: int) -> nn.Parameter | None:
    return nn.Parameter(torch.randn(count, dim) * dim**-0.5) if count else None


def _join(tokens: list[Tensor], registers: Tensor | None) -> Tensor:
    """Concatenate tokens `(chunks, ..., dim)`, and the registers after them."""
    if registers is not None:
        tokens = [*tokens, registers.to(tokens[0].dtype).expand(tokens[0].shape[0], -1, -1)]
    return torch.cat(tokens, dim=1)


def _as_map(tokens: Tensor, grid: tuple[int, int] | torch.Size) -> Tensor:
    """Reshape the first tokens of `(chunks, tokens, dim)` to rows and columns, in the channels-last format."""
    rows, columns = grid
    return tokens[:, : rows * columns].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
