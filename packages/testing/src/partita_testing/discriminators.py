"""Conformance of discriminators, of audio and of latents."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from partita_core.discriminators import Discriminator, DiscriminatorOutput
from partita_core.specs import AudioSpec
from torch import Tensor

from ._common import Suite, check, deviation, expect, expect_finite, flatten, noise, total
from ._part_state import (
    config_round_trip,
    deepcopy_is_independent,
    materializes_from_meta,
    parameters_have_dimensions,
    runs_in_float64,
    runs_under_autocast,
    state_dict_round_trip,
)
from ._parts import (
    PartCase,
    batch_composition_does_not_matter,
    eval_is_deterministic,
    eval_leaves_state_unchanged,
    gradients_reach_the_input,
    silence_is_finite,
    two_forwards_in_one_graph,
)
from .encoders import AUDIO, audio_of

# Bfloat16 has 8 bits, and layers follow layers.
BFLOAT16_TOLERANCE = 0.15


@dataclass(frozen=True)
class DiscriminatorCase(PartCase):
    """A discriminator of audio under test.

    Attributes:
        audio_spec: audio that it is built for.
        samples: length of the signals; several windows of the discriminator.
    """

    audio_spec: AudioSpec = AUDIO
    samples: int = 1024

    # Leaky ReLUs have kinks, which smaller steps rarely cross.
    steps: ClassVar[tuple[float, float]] = (1e-10, 1e-9)

    def make(self) -> Discriminator:
        """Build the discriminator from its Config."""
        return self.config.build(audio_spec=self.audio_spec)

    def units(self, part: Discriminator) -> tuple[int, int]:
        """One sample; discriminators have no frames."""
        return 1, 1

    def inputs(self, part: Discriminator, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Signals of fixed length."""
        return (audio_of(self.audio_spec, batch, self.samples, seed),)


@dataclass(frozen=True)
class LatentDiscriminatorCase(DiscriminatorCase):
    """A discriminator of latents under test.

    Attributes:
        dim: width of the latents.
        samples: number of tokens.
    """

    dim: int = 4
    samples: int = 64

    def make(self) -> Discriminator:
        """Build the discriminator from its Config."""
        return self.config.build(dim=self.dim)

    def inputs(self, part: Discriminator, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Latents of fixed length."""
        return (noise(batch, self.dim, self.samples, seed=seed),)


@check(fix="return a list of DiscriminatorOutput(logits, features), batch first, of the same sizes for every length")
def outputs_are_as_declared(case: DiscriminatorCase) -> None:
    """A nonempty list of `DiscriminatorOutput`, each with logits and features, whatever the length of the signal."""
    part = case.build()
    expect(isinstance(part, Discriminator), f"{type(part).__name__} is not a Discriminator")
    (signal,) = case.inputs(part)
    layout = None
    for mode in (True, False):
        for length in (case.samples, case.samples // 2 + 1):
            outputs = part.train(mode)(signal[..., :length])
            expect(isinstance(outputs, list) and bool(outputs), f"the result is {type(outputs).__name__}, or empty")
            for index, output in enumerate(outputs):
                fits = isinstance(output, DiscriminatorOutput)
                expect(fits, f"output {index} is a {type(output).__name__}, not a DiscriminatorOutput")
                expect(bool(output.features), f"output {index} has no features; return those of its hidden layers")
                for tensor in flatten(output):
                    batched = tensor.dim() > 0 and len(tensor) == len(signal) and tensor.numel() > 0
                    expect(batched, f"output {index} has a tensor {tuple(tensor.shape)}; 3 items must come first")
            counts = [len(output.features) for output in outputs]
            layout = layout or counts
            expect(counts == layout, f"{length} samples have {counts} features per output, others {layout}")


@check(outputs_are_as_declared, fix="pad short signals at the start of forward")
def short_signals_are_accepted(case: DiscriminatorCase) -> None:
    """Signals from one sample on have outputs and gradients that are finite."""
    part = case.build(torch.float32).train()
    (signal,) = case.inputs(part)
    for length in (1, 2, 3, 7, 30):
        short = signal[..., :length].float().requires_grad_()
        outputs = part(short)
        expect_finite(outputs, f"outputs for {length} samples")
        expect(bool(flatten(outputs)) and all(t.numel() for t in flatten(outputs)), f"{length} samples have no output")
        total(outputs).backward()
        expect_finite(short.grad, f"the gradient of {length} samples")


@check(outputs_are_as_declared, fix="use every parameter in the logits, or remove it")
def logits_reach_every_parameter(case: DiscriminatorCase) -> None:
    """The logits alone, which the adversarial losses use, give a gradient to every parameter."""
    part = case.build().train()
    total([output.logits for output in part(*case.inputs(part))]).backward()
    for name, parameter in part.named_parameters():
        if parameter.requires_grad:
            expect(parameter.grad is not None, f"{name} has no gradient from the logits")
            expect_finite(parameter.grad, f"the gradient of {name}")
            expect(bool((parameter.grad != 0).any()), f"the gradient of {name} is zero everywhere")


@check(
    outputs_are_as_declared,
    fix="compute spectra in float32, with upcast, and cast the result to the dtype of the weights",
)
def runs_in_bfloat16(case: DiscriminatorCase) -> None:
    """With bfloat16 weights, signals in bfloat16 and float32 have about the outputs of a float32 discriminator."""
    part, exact = case.build(torch.float32), case.build(torch.float32)
    part.to(torch.bfloat16)
    exact.load_state_dict(part.state_dict())
    signal = case.inputs(part)[0].to(torch.bfloat16)
    expected = exact(signal.float())
    for dtype in (torch.bfloat16, torch.float32):
        given = signal.clone().to(dtype).requires_grad_()
        outputs = part(given)
        expect_finite(outputs, f"outputs with bfloat16 weights, {dtype} signals")
        for index, (a, b) in enumerate(zip(flatten(outputs), flatten(expected))):
            off = deviation(a, b)
            expect(
                off <= BFLOAT16_TOLERANCE,
                f"tensor {index} with bfloat16 weights is off by {off:.2g} of the RMS, {BFLOAT16_TOLERANCE} is allowed",
            )
        total(outputs).backward()
        expect_finite(given.grad, f"the gradient with bfloat16 weights, {dtype} signals")


DISCRIMINATOR_CHECKS = Suite(
    "discriminator",
    DiscriminatorCase,
    (
        outputs_are_as_declared,
        short_signals_are_accepted,
        eval_is_deterministic,
        eval_leaves_state_unchanged,
        batch_composition_does_not_matter,
        gradients_reach_the_input,
        logits_reach_every_parameter,
        silence_is_finite,
        two_forwards_in_one_graph,
        parameters_have_dimensions,
        runs_in_float64,
        runs_in_bfloat16,
        runs_under_autocast,
        deepcopy_is_independent,
        state_dict_round_trip,
        config_round_trip,
        materializes_from_meta,
    ),
)

check_discriminator = DISCRIMINATOR_CHECKS.check
"""Run the suite on the discriminator of a Config, or on a `(Latent)DiscriminatorCase`; see `Suite.check`."""
