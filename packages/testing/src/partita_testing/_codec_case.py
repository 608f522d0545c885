"""A codec under test."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from partita_core.codec import Codec
from partita_core.errors import PartitaError
from partita_core.latents import Latents
from partita_core.layouts import ChannelLayout, network_layout
from torch import Tensor

from ._common import expect, noise


@dataclass(frozen=True)
class CodecCase:
    """A codec under test.

    Attributes:
        factory: makes it, in eval mode, each time the same.
        dtype: what it is compared in; float32 for a codec that float64 does not suit.
    """

    factory: Callable[[], Codec]
    dtype: torch.dtype = torch.float64

    @property
    def name(self) -> str:
        """What messages call the codec."""
        return type(self.factory()).__name__

    def build(self) -> Codec:
        """A fresh codec of the case's dtype."""
        codec = self.factory()
        expect(isinstance(codec, Codec), f"{type(codec).__name__} is no Codec")
        expect(not codec.training, "the factory's codec is in training mode")
        return codec.to(self.dtype)

    def audio(self, codec: Codec, batch: int, samples: int, layout: ChannelLayout, seed: int = 1) -> Tensor:
        """Noise at -10 dB in a layout."""
        return 0.3 * noise(batch, layout.width, samples, seed=seed, dtype=self.dtype)


def layouts_taken(codec: Codec) -> list[ChannelLayout]:
    """The layouts that the codec takes, as they are or mapped without loss."""
    taken = []
    for layout in ChannelLayout:
        try:
            network_layout(layout, codec.audio_spec.layouts)
            taken.append(layout)
        except PartitaError:
            pass
    return taken


def content_of(latents: Latents) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Values, codes and gain."""
    return latents.values, latents.codes, latents.gain
