"""Linear path beside a decoder: the network learns what a linear codec lacks."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from partita_blocks import Level
from partita_core import (
    AudioSpec,
    Config,
    DenoisingDecoder,
    FeedForwardDecoder,
    LatentSpec,
    Parallel,
    PartitaError,
    Precision,
    Stream,
    component_field,
    register,
    sum_contexts,
    widest_context,
)
from partita_core.ranges import Width
from torch import Tensor

from .linear import LinearDecoder
from .linear_mean import LinearMeanDecoder
from .oobleck import OobleckDecoderConfig


@register("decoder/linear_path")
@dataclass(frozen=True)
class LinearPathDecoderConfig(Config):
    """Config of `LinearPathDecoder`, or of `LinearMeanDecoder` if the network is a denoising decoder.

    Attributes:
        network: decoder beside the linear path.
        numbers: numbers per frame of the linear path, as in the encoder; None for as many as the latents hold.
        level: coding of the level of a frame, as in the encoder.
    """

    network: Config = component_field("decoder")
    numbers: Width | None = None
    level: Level = "none"

    def build(self, *, latent_spec: LatentSpec, audio_spec: AudioSpec) -> "LinearPathDecoder | LinearMeanDecoder":
        """Build the network and the linear path beside it."""
        network = self.network.build(latent_spec=latent_spec, audio_spec=audio_spec)
        linear = LinearDecoder(latent_spec, audio_spec, numbers=self.numbers, level=self.level)
        if isinstance(network, DenoisingDecoder):
            return LinearMeanDecoder(network, linear)
        return LinearPathDecoder(network, linear)

    @classmethod
    def example(cls) -> Self:
        """Return a tiny instance."""
        return cls(OobleckDecoderConfig.example())


class LinearPathDecoder(FeedForwardDecoder):
    """Sum of a linear decoder and of a network, which starts at zero.

    Before training this is the linear decoder that is fitted to the data; the network learns what is missing. A network
    with the attribute `refines` set gets the audio of the linear decoder as a third input.

    Args:
        network: feed-forward decoder; it is made to start at zero.
        linear: linear decoder of the same latents.

    Raises:
        PartitaError: the network is not a feed-forward decoder.
    """

    def __init__(self, network: FeedForwardDecoder, linear: LinearDecoder) -> None:
        super().__init__()
        if not isinstance(network, FeedForwardDecoder):
            raise PartitaError(f"{type(network).__name__} is not a feed-forward decoder, which a linear path needs")
        self.in_dim, self.hop, self.audio_spec = network.in_dim, network.hop, network.audio_spec
        self.tile_seconds = network.tile_seconds
        self.linear, self.network = linear, network
        network.start_at_zero()
        self.refines = getattr(network, "refines", False)
        combined = sum_contexts if self.refines else widest_context
        self.context = combined(linear.context, network.context)

    def forward(self, hidden: Tensor, layout: Tensor) -> Tensor:
        """Decode `(batch, in_dim, frames)` of layouts `(batch,)` to `(batch, channels, hop * frames)`."""
        linear = self.linear(hidden, layout)
        inputs = (hidden, layout, linear) if self.refines else (hidden, layout)
        return _sum(linear, self.network(*inputs))

    def stream(
        self,
        layout: Tensor,
        *,
        sampler: Any = None,
        seeds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        width: int = 1,
    ) -> Stream:
        """Return a stream, as `FeedForwardDecoder.stream` does, with the network's own stream beside the linear one."""
        settings: dict[str, Any] = {"sampler": sampler, "seeds": seeds, "dtype": dtype, "width": width}
        if self.refines:
            return super().stream(layout, **settings)
        return Parallel(_sum, self.linear.stream(layout, **settings), self.network.stream(layout, **settings))

    def start_at_zero(self) -> None:
        """Raise a PartitaError: with a linear path the output is not zero."""
        raise PartitaError(f"{type(self).__name__} cannot start at zero; use its network without the path")

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Optimize the network; see `Role.optimize`. The linear path keeps its precision."""
        self.network.optimize(precision=precision, compile=compile)


def _sum(linear: Tensor, network: Tensor) -> Tensor:
    return linear + network.to(linear.dtype)
