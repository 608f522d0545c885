"""Abstract base classes of decoders: the interface of all decoders to `Codec`, and decoders in one pass.

Decoders that sample are in `denoising`.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from .errors import PartitaError
from .roles import Role, part_stream
from .specs import AudioSpec
from .streams import Stream


class Decoder(Role, ABC):
    """Expanded latents to audio: the interface of all decoders to `Codec`.

    Attributes:
        hop: samples per frame.
        in_dim: width of the latents.
        tokens_per_frame: latent vectors per frame (K).
        audio_spec: format of the output audio.
        tile_seconds: preferred length of a tile in seconds, to bound memory; see `Codec`.
    """

    hop: int
    in_dim: int
    audio_spec: AudioSpec
    tokens_per_frame: int = 1
    tile_seconds: float = 30.0

    @abstractmethod
    def generate(self, hidden: Tensor, layout: Tensor, *, sampler: Any = None, seeds: Tensor | None = None) -> Tensor:
        """Decode `(batch, in_dim, frames * K)` to audio `(batch, channels, hop * frames)`.

        Args:
            hidden: latents.
            layout: channel layout of each item, `(batch,)` int64.
            sampler: sampler of a denoising decoder; None for its own.
            seeds: noise seeds `(batch,)` int64; None for zeros.
        """

    @abstractmethod
    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """Return a stream from frames of latents to audio.

        Args:
            layout: channel layout of each item, `(batch,)` int64.
            sampler: sampler of a denoising decoder; None for its own.
            seeds: noise seeds `(batch,)` int64; None for zeros.
            dtype: dtype of the latents.
            width: maximum number of frames per call of the networks, context aside.
        """


class FeedForwardDecoder(Decoder, ABC):
    """Decoder that generates audio in one pass.

    Attributes:
        loss_weights: training weight of each of the `losses`; empty by default.
    """

    loss_weights: dict[str, float] = {}

    @abstractmethod
    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames * K)` to exactly `(batch, channels, hop * frames)`."""

    def losses(
        self, hidden: Tensor, layout: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute losses of the decoder's own, such as a likelihood of the target; none by default.

        Args:
            hidden: latents `(batch, in_dim, frames * K)`.
            layout: channel layout of each item, `(batch,)` int64.
            target: audio `(batch, channels, hop * frames)` of the same layouts.
            lengths: number of valid samples of each item, `(batch,)` int64; None if all are valid.

        Returns:
            Scalar losses by the names in `loss_weights`.
        """
        return {}

    def reconstruct(
        self, hidden: Tensor, layout: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode as `forward` does, and compute `losses`, whose arguments it takes; override it to share computation.

        Training calls it if there are `loss_weights`.

        Returns:
            Audio `(batch, channels, hop * frames)`, and scalar losses by the names in `loss_weights`.
        """
        return self(hidden, layout), self.losses(hidden, layout, target, lengths)

    def generate(self, hidden: Tensor, layout: Tensor, *, sampler: Any = None, seeds: Tensor | None = None) -> Tensor:
        """Call `forward`. Seeds are ignored; a sampler raises a PartitaError."""
        reject_sampler(self, sampler)
        return self(hidden, layout)

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """Return a stream of `forward`. Seeds are ignored; a sampler raises a PartitaError."""
        reject_sampler(self, sampler)
        return part_stream(
            self,
            lambda hidden: self(hidden, layout.to(hidden.device)),
            units_in=self.tokens_per_frame,
            units_out=self.hop,
            hop=self.hop,
            width=width,
            layout=layout,
            dtype=dtype,
        )


def reject_sampler(part: object, sampler: Any) -> None:
    """Check that no sampler is given to a decoder or codec that does not sample.

    Raises:
        PartitaError: a sampler is given.
    """
    if sampler is not None:
        raise PartitaError(f"{type(part).__name__} takes no sampler, but got {sampler!r}; leave it out")
