"""Numbers of a linear codec as latents: as they are, companded, or as a direction and a level."""

import math
from typing import Literal

import torch
from partita_core import PartitaError, TypedModule
from torch import Tensor, nn

Level = Literal["none", "root", "channel"]

# Number that is added to the RMS of a frame; numbers have a mean square of 1 over the data, so this is -60 dB.
_SILENCE = 1e-3
# The level channel is `_SLOPE * (ln(rms + _SILENCE) - _CENTER)`: about -8 for silence, 2 for a frame of average energy.
_SLOPE, _CENTER = 1.5, -1.5
# Largest magnitude of a bounded latent that is expanded again, and largest exponent of a decoded level.
_MAX_BOUNDED, _MAX_LOG_LEVEL = 1 - 1e-6, 5.0
# Added to mean squares, far below those of audible frames.
_TINY = 1e-24
# Smallest divisor of a corrected direction, which otherwise has an RMS of 1: only silent frames are below.
_MIN_RMS = 0.1


class LevelCode(TypedModule):
    """Bijection between the numbers of a linear codec and latents, which bottlenecks may bound or normalize.

    * `"none"`: latents are the numbers.
    * `"root"`: each frame is divided by the root of its RMS, which halves the range of levels in decibels.
    * `"channel"`: each frame is divided by its RMS, and the logarithm of the RMS is a channel of its own. The result is
      rotated into the vectors of mean zero, so that any bottleneck that subtracts the mean of a frame, or multiplies a
      frame by a factor, loses nothing: the factor is found again from the RMS of the numbers.

    Latents have `numbers` channels of the numbers, then channels that are free for a network, and with `"channel"` two
    more.

    Args:
        dim: channels of the latents.
        numbers: numbers per frame; None for as many as fit.
        level: see above.
        bounded: whether the latents to decode are hyperbolic tangents.

    Raises:
        PartitaError: the numbers do not fit into the latents.

    Attributes:
        numbers: numbers per frame.
        content: numbers and free channels.
    """

    def __init__(self, dim: int, numbers: int | None = None, *, level: Level = "none", bounded: bool = False) -> None:
        super().__init__()
        self.content = dim - 2 if level == "channel" else dim
        self.dim, self.level, self.bounded = dim, level, bounded
        self.numbers = self.content if numbers is None else numbers
        if not 1 <= self.numbers <= self.content:
            raise PartitaError(
                f"numbers is {numbers}; latents of width {dim} with level={level!r} hold 1 to {self.content}"
            )

    def encode(self, numbers: Tensor, correction: Tensor | None = None) -> Tensor:
        """Encode numbers `(batch, numbers, frames)` to latents `(batch, dim, frames)`.

        Args:
            numbers: numbers of a linear codec.
            correction: `(batch, content, frames)`, added to the numbers of each frame after its level is taken out, and
                to the free channels.
        """
        rms = (numbers.square().mean(1, keepdim=True) + _TINY).sqrt()
        if self.level == "root":
            numbers = numbers / (rms.square() + _SILENCE**2).sqrt().sqrt()
        elif self.level == "channel":
            numbers = numbers / rms
        content = nn.functional.pad(numbers, (0, 0, 0, self.content - self.numbers))
        if correction is not None:
            content = content + correction
        if self.level != "channel":
            return content
        numbers, free = content.split((self.numbers, self.content - self.numbers), dim=1)
        numbers = numbers / (numbers.square().mean(1, keepdim=True) + _TINY).sqrt().clamp_min(_MIN_RMS)
        level = _SLOPE * ((rms + _SILENCE).log() - _CENTER)
        return self._rotation(numbers) @ torch.cat([numbers, free, level], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents `(batch, dim, frames)` to numbers `(batch, numbers, frames)`."""
        if self.bounded:
            latents = latents.clamp(-_MAX_BOUNDED, _MAX_BOUNDED).atanh()
        if self.level == "none":
            return latents[:, : self.numbers]
        if self.level == "root":
            numbers = latents[:, : self.numbers]
            square = numbers.square().mean(1, keepdim=True)
            # Solves square = rms^2 / (rms^2 + _SILENCE^2)^(1/2) for the factor rms / square^(1/2).
            return numbers * ((square + (square.square() + 4 * _SILENCE**2).sqrt()) / 2).sqrt()
        content = self._rotation(latents).mT @ latents
        numbers, level = content[:, : self.numbers], content[:, -1:]
        rms = (numbers.square().mean(1, keepdim=True) + _TINY).sqrt()
        logarithm = (level / rms / _SLOPE + _CENTER).clamp(max=_MAX_LOG_LEVEL)
        return numbers / rms * (logarithm.exp() - _SILENCE).relu()

    def _rotation(self, like: Tensor) -> Tensor:
        """Orthonormal basis `(dim, dim - 1)` of the vectors of mean zero: all cosines but the constant."""
        position = torch.arange(self.dim, dtype=torch.float64, device=like.device) + 0.5
        order = torch.arange(1, self.dim, dtype=torch.float64, device=like.device)
        return (math.sqrt(2 / self.dim) * (math.pi / self.dim * position[:, None] * order).cos()).to(like.dtype)
