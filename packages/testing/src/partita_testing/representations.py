"""Conformance suite of representation encoders."""

from dataclasses import dataclass
from typing import Any

from partita_core.representation_role import RepresentationEncoder
from partita_core.specs import LatentSpec
from partita_core.streams import Stream
from torch import Tensor

from ._common import Suite, check, expect, flatten, noise
from ._context import WITH_CONTEXT, steps_do_not_modify_in_place
from ._part_state import EVERY_PART
from ._parts import PartCase


@dataclass(frozen=True)
class RepresentationCase(PartCase):
    """A representation encoder under test.

    Attributes:
        latent_spec: latents that it is built for.
    """

    latent_spec: LatentSpec = LatentSpec(6, 8000, 16, tokens_per_frame=2)

    def make(self) -> RepresentationEncoder:
        """Build the representation encoder from its Config."""
        return self.config.build(latent_spec=self.latent_spec)

    def units(self, part: RepresentationEncoder) -> tuple[int, int]:
        """Tokens per frame, and one feature per frame."""
        return part.tokens_per_frame, 1

    def inputs(
        self, part: RepresentationEncoder, *, batch: int = 3, frames: int = 4, seed: int = 1
    ) -> tuple[Tensor, ...]:
        """Latents of unit variance."""
        return (noise(batch, part.dim, part.tokens_per_frame * frames, seed=seed),)

    def per_item(self, result: Any) -> list[Tensor]:
        """Features with time last, as the shared checks expect."""
        return [features.mT for features in flatten(result)]

    def stream(self, part: RepresentationEncoder, rest: tuple[Tensor, ...], width: int) -> Stream:
        """Stream from full frames of latents to features."""
        return part.stream(2, dtype=self.inputs(part)[0].dtype, width=width)


@check(fix="return `(batch, frames, width)` for `frames * tokens_per_frame` tokens, or correct the attributes")
def shapes_are_as_declared(case: RepresentationCase) -> None:
    """Widths and tokens per frame are as declared; 1, 2, 3 and 5 frames give as many features."""
    part, spec = case.build(), case.latent_spec
    expect(isinstance(part, RepresentationEncoder), f"{type(part).__name__} is not a RepresentationEncoder")
    for name in ("dim", "tokens_per_frame"):
        declared, asked = getattr(part, name), getattr(spec, name)
        expect(declared == asked, f"{name} is {declared}, the Config was built with {asked}")
    for frames in (1, 2, 3, 5):
        shape, declared = tuple(part(*case.inputs(part, frames=frames)).shape), (3, frames, part.width)
        expect(shape == declared, f"{frames} frames become {shape}, declared is {declared}")


REPRESENTATION_CHECKS = Suite(
    "representation",
    RepresentationCase,
    (shapes_are_as_declared, *EVERY_PART, *WITH_CONTEXT, steps_do_not_modify_in_place),
)

check_representation = REPRESENTATION_CHECKS.check
"""Run the suite on the representation encoder of a Config, or on a `RepresentationCase`; see `Suite.check`."""
