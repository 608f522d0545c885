"""Conformance suite of encoders."""

from dataclasses import dataclass

import torch
from partita_core.layouts import ChannelLayout
from partita_core.roles import Encoder
from partita_core.specs import AudioSpec
from partita_core.streams import Stream
from torch import Tensor

from ._common import Suite, check, expect, noise
from ._context import WITH_CONTEXT, steps_do_not_modify_in_place
from ._part_state import EVERY_PART
from ._parts import PartCase
from ._zero_start import starts_at_zero

AUDIO = AudioSpec(8000, 2, (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE))


@dataclass(frozen=True)
class EncoderCase(PartCase):
    """An encoder under test.

    Attributes:
        audio_spec: audio that it is built for.
        out_dim: number of channels of its hidden frames.
    """

    audio_spec: AudioSpec = AUDIO
    out_dim: int = 4

    def make(self) -> Encoder:
        """Build the encoder from its Config."""
        return self.config.build(out_dim=self.out_dim, audio_spec=self.audio_spec)

    def units(self, part: Encoder) -> tuple[int, int]:
        """Hop, and tokens per frame."""
        return part.hop, part.tokens_per_frame

    def inputs(self, part: Encoder, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Network audio and layouts, a different layout for each item."""
        return audio_of(self.audio_spec, batch, part.hop * frames, seed), layouts_of(self.audio_spec, batch)

    def stream(self, part: Encoder, rest: tuple[Tensor, ...], width: int) -> Stream:
        """Stream from full frames of audio to hidden frames."""
        (layout,) = rest
        return part.stream(layout, dtype=torch.float64, width=width)


def layouts_of(spec: AudioSpec, batch: int) -> Tensor:
    """Layouts `(batch,)` that cycle through those of `spec`."""
    return torch.tensor([int(spec.layouts[i % len(spec.layouts)]) for i in range(batch)])


def audio_of(spec: AudioSpec, batch: int, samples: int, seed: int) -> Tensor:
    """Noise at -10 dB, `(batch, channels, samples)`, in which mono is the pair (m, m)."""
    audio = 0.3 * noise(batch, spec.channels, samples, seed=seed)
    mono = layouts_of(spec, batch) == int(ChannelLayout.MONO)
    return torch.where(mono[:, None, None], audio[:, :1], audio)


@check(fix="return `(batch, out_dim, frames * tokens_per_frame)` for `hop * frames` samples, or correct the attributes")
def shapes_are_as_declared(case: EncoderCase) -> None:
    """Measured hop and width equal the declared ones for 1, 2, 3 and 5 frames."""
    part = case.build()
    expect(isinstance(part, Encoder), f"{type(part).__name__} is not an Encoder")
    expect(part.out_dim == case.out_dim, f"out_dim is {part.out_dim}, the Config was built with {case.out_dim}")
    expect(
        part.audio_spec == case.audio_spec,
        f"audio_spec is {part.audio_spec}, the Config was built with {case.audio_spec}",
    )
    for frames in (1, 2, 3, 5):
        hidden = part(*case.inputs(part, frames=frames))
        declared = (3, part.out_dim, frames * part.tokens_per_frame)
        given = f"{frames} frames of {part.hop} samples"
        expect(tuple(hidden.shape) == declared, f"{given} become {tuple(hidden.shape)}, declared is {declared}")


ENCODER_CHECKS = Suite(
    "encoder",
    EncoderCase,
    (shapes_are_as_declared, *EVERY_PART, starts_at_zero, *WITH_CONTEXT, steps_do_not_modify_in_place),
)

check_encoder = ENCODER_CHECKS.check
"""Run the suite on the encoder of a Config, or on an `EncoderCase`; see `Suite.check`."""
