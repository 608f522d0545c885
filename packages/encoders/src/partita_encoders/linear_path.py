"""Linear path beside an encoder: the network learns what a linear codec lacks."""

from dataclasses import dataclass
from typing import Self

import torch
from partita_blocks import Level
from partita_core import (
    AudioSpec,
    Config,
    Encoder,
    Parallel,
    PartitaError,
    Precision,
    Stream,
    component_field,
    register,
    widest_context,
)
from partita_core.ranges import Proportion, Width
from torch import Tensor

from .linear import LinearEncoder
from .oobleck import OobleckEncoderConfig


@register("encoder/linear_path")
@dataclass(frozen=True)
class LinearPathEncoderConfig(Config):
    """Config of `LinearPathEncoder`.

    Attributes:
        network: encoder beside the linear path.
        numbers: numbers per frame of the linear path; None for as many as the latents hold. The decoder needs the same
            value.
        level: coding of the level of a frame; see `partita_blocks.LevelCode`.
        weighting: see `LinearEncoder`.
        corrects: let the network change the numbers of the linear path, not only the channels that they leave free.
    """

    network: Config = component_field("encoder")
    numbers: Width | None = None
    level: Level = "none"
    weighting: Proportion = 0.0
    corrects: bool = True

    def build(self, *, out_dim: int, audio_spec: AudioSpec) -> "LinearPathEncoder":
        """Build the network and the linear path beside it."""
        return LinearPathEncoder(
            self.network.build(out_dim=out_dim, audio_spec=audio_spec),
            numbers=self.numbers,
            level=self.level,
            weighting=self.weighting,
            corrects=self.corrects,
        )

    @classmethod
    def example(cls) -> Self:
        """Return a tiny instance."""
        return cls(OobleckEncoderConfig.example())


class LinearPathEncoder(Encoder):
    """Sum of a linear encoder and of a network, which starts at zero.

    Before training this is the linear encoder that is fitted to the data; the network learns corrections of its numbers
    and the content of the channels that they leave free. See `LinearPathEncoderConfig` for the arguments.

    Args:
        network: encoder with one token per frame; it is made to start at zero.
        numbers: numbers per frame of the linear path.
        level: coding of the level of a frame.
        weighting: see `LinearEncoder`.
        corrects: whether the network changes the numbers of the linear path.

    Raises:
        PartitaError: the network makes several tokens per frame, or the numbers do not fit.

    Attributes:
        held: True while training leaves the numbers of the linear path unchanged; False at first.
    """

    def __init__(
        self,
        network: Encoder,
        *,
        numbers: int | None = None,
        level: Level = "none",
        weighting: float = 0.0,
        corrects: bool = True,
    ) -> None:
        super().__init__()
        if network.tokens_per_frame != 1:
            raise PartitaError(
                f"{type(network).__name__} makes {network.tokens_per_frame} tokens per frame; a linear path needs 1"
            )
        self.out_dim, self.hop, self.audio_spec = network.out_dim, network.hop, network.audio_spec
        self.tile_seconds, self.corrects, self.held = network.tile_seconds, corrects, False
        self.linear = LinearEncoder(
            network.out_dim, network.audio_spec, hop=network.hop, numbers=numbers, level=level, weighting=weighting
        )
        self.network = network
        network.start_at_zero()
        self.context = widest_context(self.linear.context, network.context)

    def forward(self, audio: Tensor, layout: Tensor) -> Tensor:
        """Encode `(batch, channels, hop * frames)` of layouts `(batch,)` to `(batch, out_dim, frames)`."""
        return self._combine(self.linear.numbers(audio, layout), self.network(audio, layout))

    def stream(self, layout: Tensor, *, dtype: torch.dtype = torch.float32, width: int = 1) -> Stream:
        """Return a stream, as `Encoder.stream` does, with the network's own stream in parallel to the linear path."""
        network = self.network.stream(layout, dtype=dtype, width=width)
        return Parallel(self._combine, self.linear.numbers_stream(layout, width=width), network)

    def start_at_zero(self) -> None:
        """Raise a PartitaError: with a linear path the output is not zero."""
        raise PartitaError(f"{type(self).__name__} cannot start at zero; use its network without the path")

    def optimize(self, *, precision: Precision, compile: bool) -> None:
        """Optimize the network; see `Role.optimize`. The linear path keeps its precision."""
        self.network.optimize(precision=precision, compile=compile)

    def _combine(self, numbers: Tensor, output: Tensor) -> Tensor:
        code = self.linear.code
        correction = output[:, : code.content].to(numbers.dtype)
        if self.held or not self.corrects:
            correction = torch.cat([torch.zeros_like(numbers), correction[:, code.numbers :]], dim=1)
        return code.encode(numbers, correction).to(output.dtype)
