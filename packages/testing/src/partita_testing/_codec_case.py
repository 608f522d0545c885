"""Cases of codecs."""

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
        factory: function that returns the codec in eval mode, with equal weights on every call.
        dtype: dtype of the comparison; float32 for a codec that does not support float64.
    """

    factory: Callable[[], Codec]
    dtype: torch.dtype = torch.float64

    @property
    def name(self) -> str:
        """Name of the codec in messages."""
        return type(self.factory()).__name__

    def build(self) -> Codec:
        """Build the codec in the dtype of the case."""
        codec = self.factory()
        expect(isinstance(codec, Codec), f"{type(codec).__name__} is not a Codec")
        expect(not codec.training, "the factory returns a codec in training mode; call eval()")
        return codec.to(self.dtype)

    def audio(self, codec: Codec, batch: int, samples: int, layout: ChannelLayout, seed: int = 1) -> Tensor:
        """Noise at -10 dB in a layout."""
        return 0.3 * noise(batch, layout.width, samples, seed=seed, dtype=self.dtype)


def layouts_taken(codec: Codec) -> list[ChannelLayout]:
    """Layouts that the codec supports, directly or by lossless conversion."""
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
