"""Conformance suite of losses."""

from dataclasses import dataclass
from typing import Any

import torch
from partita_core.errors import PartitaError
from partita_core.lengths import length_mask
from partita_core.roles import Loss
from partita_core.specs import AudioSpec
from torch import Tensor

from ._common import Suite, check, expect, expect_equal, expect_finite, noise
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
    two_forwards_in_one_graph,
)
from .encoders import AUDIO, audio_of


@dataclass(frozen=True)
class LossCase(PartCase):
    """A loss under test.

    Attributes:
        audio_spec: audio that it is built for.
        samples: length of the signals; should cover several windows of the loss.
    """

    audio_spec: AudioSpec = AUDIO
    samples: int = 2048

    def make(self) -> Loss:
        """Build the loss from its Config."""
        return self.config.build(audio_spec=self.audio_spec)

    def units(self, part: Loss) -> tuple[int, int]:
        """Unused: a loss has no frames."""
        return 1, 1

    def inputs(self, part: Loss, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """A noisy copy of the target, and the target."""
        target = audio_of(self.audio_spec, batch, self.samples, seed + 10)
        return target + 0.1 * noise(*target.shape, seed=seed), target

    def gradient(self, part: Loss, prediction: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """Gradient of the sum over items with respect to the prediction; expects finite values."""
        prediction = prediction.clone().requires_grad_()
        values = part(prediction, target, **kwargs)
        expect_finite(values, "the values")
        values.sum().backward()
        assert prediction.grad is not None
        expect_finite(prediction.grad, "the gradient")
        return prediction.grad


@check(fix="reduce over channels and time only, in at least float32")
def one_value_per_item(case: LossCase) -> None:
    """The result is `(batch,)` float32, for half types too."""
    part = case.build(torch.float32)
    expect(isinstance(part, Loss), f"{type(part).__name__} is not a Loss")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        values = part(*(x.to(dtype) for x in case.inputs(part)))
        expect(tuple(values.shape) == (3,), f"3 items give values of shape {tuple(values.shape)}")
        expect(values.dtype == torch.float32, f"{dtype} signals give {values.dtype} values")


@check(one_value_per_item, fix="make the distance of a signal to itself zero and to any other positive")
def zero_at_equality(case: LossCase) -> None:
    """The distance of a signal to itself is zero, and to any other positive."""
    part = case.build()
    prediction, target = case.inputs(part)
    values, same = part(prediction, target), part(target, target)
    expect(bool((values > 0).all()), f"distances of different signals are {values.tolist()}")
    ratio = float(same.abs().max() / values.min())
    expect(ratio < 1e-6, f"the distance of a signal to itself is {ratio:.2g} of that to another")


@check(fix="compare the shapes at the start of forward, and raise a PartitaError")
def different_shapes_raise(case: LossCase) -> None:
    """Signals of different shapes raise a PartitaError of one line instead of broadcasting."""
    part = case.build()
    prediction, target = case.inputs(part)
    wrong = {"item": target[:1], "channel": target[:, :1], "length": target[..., :-1], "dimension": target[0]}
    for what, other in wrong.items():
        try:
            part(prediction, other)
        except PartitaError as error:
            expect("\n" not in str(error), f"the message for another {what} is not one line")
        else:
            raise AssertionError(f"{tuple(prediction.shape)} and {tuple(other.shape)} raise no PartitaError")


@check(
    one_value_per_item,
    fix="add a floor where the loss divides by, or takes the root or logarithm of, what is zero for silence",
)
def silence_gives_finite_gradients(case: LossCase) -> None:
    """For digital silence and near it, in prediction, target or both, values and gradients are finite."""
    part = case.build(torch.float32)
    signal = case.inputs(part)[1].float()
    for loud in (0.0, 1e-30, 1e-12, 1e-7, 1.0):
        for other in (0.0, 1e-30, 1e-12, 1e-7, 1.0):
            case.gradient(part, loud * signal.flip(-1), other * signal)


@check(silence_gives_finite_gradients, fix="use a distance whose gradient does not vanish at zero, such as an L1 term")
def gradient_at_silence_is_nonzero(case: LossCase) -> None:
    """For a prediction of zeros each item and channel has a gradient, so training can leave silence."""
    part = case.build(torch.float32)
    target = case.inputs(part)[1].float()
    gradient = case.gradient(part, torch.zeros_like(target), target)
    dead = (gradient == 0).all(-1).nonzero().tolist()
    expect(not dead, f"the gradient at a prediction of zeros is zero for (item, channel) {dead}")


@check(one_value_per_item, fix="detach nothing that depends on the prediction")
def gradient_matches_finite_differences(case: LossCase) -> None:
    """The gradient equals that of finite differences in float64."""
    part = case.build()
    prediction, target = case.inputs(part)
    gradient = case.gradient(part, prediction, target)
    direction, step = noise(*prediction.shape, seed=9), 1e-7
    ends = [part(prediction + sign * step * direction, target).detach().sum() for sign in (1, -1)]
    measured = float((ends[0] - ends[1]) / (2 * step))
    given = float((gradient * direction).sum())
    # Along one direction contributions nearly cancel, so the scale is their size, not their sum.
    scale = float((gradient * direction).square().sum().sqrt())
    expect(
        abs(measured - given) <= 1e-2 * scale,
        f"the measured slope is {measured:.4g}, that of the gradient is {given:.4g}",
    )


@check(one_value_per_item, fix="mask samples from `lengths` on, and divide by the number of the others")
def padding_is_ignored(case: LossCase) -> None:
    """Samples beyond `lengths` change no value and get no gradient; full lengths equal None."""
    part = case.build()
    prediction, target = case.inputs(part)
    lengths = torch.tensor([case.samples, case.samples * 3 // 4, case.samples // 2 + 1])
    full = torch.full((3,), case.samples)
    expect_equal(part(prediction, target, lengths=full), part(prediction, target), "with full lengths")
    past = ~length_mask(lengths, case.samples)[:, None]
    values = part(prediction, target, lengths=lengths)
    listed = part(prediction, target, lengths=lengths.tolist())
    expect_equal(listed, values, "with lengths as a list", exact=True)
    expect(bool((values > 0).all()), f"with lengths, distances of different signals are {values.tolist()}")
    for seed, scale in ((5, 1.0), (6, 0.0)):
        junk = [torch.where(past, scale * noise(*x.shape, seed=seed), x) for x in (prediction, target)]
        expect_equal(part(*junk, lengths=lengths), values, "with other padding")
    gradient = case.gradient(part, prediction, target, lengths=lengths)
    largest = float(torch.where(past, gradient, 0).abs().max())
    expect(largest == 0, f"padding gets a gradient of up to {largest:.2g}")


LOSS_CHECKS = Suite(
    "loss",
    LossCase,
    (
        one_value_per_item,
        zero_at_equality,
        different_shapes_raise,
        silence_gives_finite_gradients,
        gradient_at_silence_is_nonzero,
        gradient_matches_finite_differences,
        padding_is_ignored,
        eval_is_deterministic,
        eval_leaves_state_unchanged,
        batch_composition_does_not_matter,
        two_forwards_in_one_graph,
        parameters_have_dimensions,
        runs_in_float64,
        runs_under_autocast,
        deepcopy_is_independent,
        state_dict_round_trip,
        config_round_trip,
        materializes_from_meta,
    ),
)

check_loss = LOSS_CHECKS.check
"""Run the suite on the loss of a Config, or on a `LossCase`; see `Suite.check`."""
