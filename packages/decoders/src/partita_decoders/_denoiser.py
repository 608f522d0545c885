"""The networks of the consistency decoder: latents to feature maps, and with these from noise to a spectrogram."""

import torch
from partita_blocks import (
    AdaptiveGroupNorm,
    ChunkTransformer,
    Depatchifier,
    FrequencyGains,
    NoiseEmbedding,
    Patchifier,
    VectorsToGrid,
)
from torch import Tensor, nn


class Upsampler(nn.Module):
    """Latents of a chunk to feature maps: a learned vector for each frequency, which attention to the latents fills."""

    def __init__(
        self,
        *,
        latent_dim: int,
        dim: int,
        grid: tuple[int, int],
        latents: int,
        registers: int,
        direct: int | None,
        transformer: ChunkTransformer,
        depatchifier: Depatchifier,
    ) -> None:
        """Takes the widths of latents and tokens, rows and columns of the tokens, and the latents of a chunk.

        Of `direct` channels, where there are any, one matrix makes part of the tokens.
        """
        super().__init__()
        self.grid = grid
        self.project = nn.Linear(latent_dim, dim)
        self.mask = nn.Parameter(torch.randn(grid[0], 1, dim) * dim**-0.5)
        self.registers = _registers(registers, dim)
        self.direct = None
        if direct is not None:
            places = grid[0] * grid[1]
            self.direct = VectorsToGrid(dim, vectors=latents, vector_dim=latent_dim, positions=places, width=direct)
        self.transformer, self.depatchifier = transformer, depatchifier

    def forward(self, latents: Tensor) -> list[Tensor]:
        """`(chunks, latents, latent_dim)` to the map after each block, from full resolution on."""
        mask = self.mask.expand(-1, self.grid[1], -1).flatten(0, 1).to(latents.dtype)
        places = mask.expand(latents.shape[0], -1, -1)
        if self.direct is not None:
            places = places + self.direct(latents)
        tokens = [places, self.project(latents)]
        x = self.transformer(torch.cat(_with(self.registers, tokens), dim=1))
        return self.depatchifier(_as_map(x, self.grid))[::-1]


class Denoiser(nn.Module):
    """The network of the consistency model: convolutions chunk by chunk, and between them attention to the past.

    Its first and last layer and the embedding of the noise level are never autocast, so that what runs between them is
    a sum in float32 to which every block adds. Late in training a student and its teacher differ by less than a half
    type resolves, and rounding at the two ends would decide that difference.
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
        """Takes the channels of spectrograms, the widths of the first and the last level, and the frequencies."""
        super().__init__()
        self.embedding = NoiseEmbedding(condition_dim)
        self.gains = FrequencyGains(condition_dim, bins)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.registers = _registers(registers, dim)
        self.patchifier, self.transformer, self.depatchifier = patchifier, transformer, depatchifier
        self.norm = AdaptiveGroupNorm(width, condition_dim=condition_dim)
        self.head = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, sigma: Tensor, maps: list[Tensor], latents: Tensor | None) -> Tensor:
        """Runs the network on w chunks.

        Args:
            x: scaled spectrograms `(batch * w, channels, bins, frames)`.
            sigma: `(batch, w)`, the noise levels they have.
            maps: features to merge before each block of the patchifier, each `(batch * w, ...)`.
            latents: further tokens `(batch * w, latents, dim)`, or None.

        Returns:
            As much as `x`.
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
        tokens = torch.cat(_with(self.registers, tokens), dim=1)
        tokens = self.transformer(tokens.unflatten(0, (-1, chunks)).flatten(1, 2), condition)
        tokens = tokens.unflatten(1, (chunks, -1)).flatten(0, 1)
        up = self.depatchifier(_as_map(tokens, grid), skips=down[::-1], condition=each)
        with _not_autocast(x):
            return self.head(self.norm(up[-1].to(dtype), each) * leaving)


def _not_autocast(x: Tensor) -> torch.autocast:
    """A context in which everything runs in the dtype of the weights."""
    return torch.autocast(x.device.type, enabled=False)


def _registers(count: int, dim: int) -> nn.Parameter | None:
    return nn.Parameter(torch.randn(count, dim) * dim**-0.5) if count else None


def _with(registers: Tensor | None, tokens: list[Tensor]) -> list[Tensor]:
    if registers is None:
        return tokens
    return [*tokens, registers.to(tokens[0].dtype).expand(tokens[0].shape[0], -1, -1)]


def _as_map(tokens: Tensor, grid: tuple[int, int] | torch.Size) -> Tensor:
    """The first tokens of `(chunks, tokens, dim)`, which are rows and columns, as a map in the channels-last format."""
    rows, columns = grid
    return tokens[:, : rows * columns].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
