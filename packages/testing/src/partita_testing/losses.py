"""What every `Loss` holds."""

from dataclasses import dataclass
from typing import Any

import torch
from partita_core.errors import PartitaError
from partita_core.registry import Config
from partita_core.roles import Loss
from partita_core.specs import AudioSpec
from torch import Tensor

from ._common import Suite, expect, expect_equal, expect_finite, noise
from ._parts import (
    PartCase,
    batch_composition_does_not_matter,
    config_round_trip,
    deepcopy_is_independent,
    eval_is_deterministic,
    eval_leaves_state_unchanged,
    materialized_from_meta_is_right,
    parameters_have_dimensions,
    runs_in_float64,
    runs_under_autocast,
    state_dict_round_trip,
    two_forwards_in_one_graph,
)
from .encoders import AUDIO, audio_of


@dataclass(frozen=True)
class LossCase(PartCase):
    """A loss under test.

    Attributes:
        audio_spec: the audio it is built for.
        samples: of the signals; several of its windows.
    """

    audio_spec: AudioSpec = AUDIO
    samples: int = 2048

    def make(self) -> Loss:
        """The loss as its Config builds it."""
        return self.config.build(audio_spec=self.audio_spec)

    def units(self, part: Loss) -> tuple[int, int]:
        """Of no meaning here: a loss has no frames."""
        return 1, 1

    def inputs(self, part: Loss, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """A target with noise added, and the target."""
        target = audio_of(self.audio_spec, batch, self.samples, seed + 10)
        return target + 0.1 * noise(*target.shape, seed=seed), target

    def gradient(self, part: Loss, prediction: Tensor, target: Tensor, **kwargs: Any) -> Tensor:
        """The gradient of the sum over items by the prediction; both are finite."""
        prediction = prediction.clone().requires_grad_()
        figures = part(prediction, target, **kwargs)
        expect_finite(figures, "the figures")
        figures.sum().backward()
        assert prediction.grad is not None
        expect_finite(prediction.grad, "the gradient")
        return prediction.grad


def one_figure_an_item(case: LossCase) -> None:
    """The result is `(batch,)` float32, also for half types."""
    part = case.build(torch.float32)
    expect(isinstance(part, Loss), f"{type(part).__name__} is no Loss")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        figures = part(*(x.to(dtype) for x in case.inputs(part)))
        expect(tuple(figures.shape) == (3,), f"3 items make {tuple(figures.shape)}")
        expect(figures.dtype == torch.float32, f"{dtype} signals make {figures.dtype} figures")


def zero_at_equality(case: LossCase) -> None:
    """A signal is at no distance of itself, and at some of any other."""
    part = case.build()
    prediction, target = case.inputs(part)
    figures, same = part(prediction, target), part(target, target)
    expect(bool((figures > 0).all()), f"different signals are at distances {figures.tolist()}")
    off = float(same.abs().max() / figures.min())
    expect(off < 1e-6, f"a signal is {off:.2g} of another's distance away from itself")


def different_shapes_are_refused(case: LossCase) -> None:
    """Signals of different shapes raise a PartitaError of one line, and are not broadcast."""
    part = case.build()
    prediction, target = case.inputs(part)
    wrong = {"item": target[:1], "channel": target[:, :1], "length": target[..., :-1], "dimension": target[0]}
    for what, other in wrong.items():
        try:
            part(prediction, other)
        except PartitaError as error:
            expect("\n" not in str(error), f"the refusal of another {what} takes more than one line")
        else:
            raise AssertionError(f"{tuple(prediction.shape)} against {tuple(other.shape)} is accepted")


def silence_gives_finite_gradients(case: LossCase) -> None:
    """On digital silence and next to it, in prediction, target or both, figures and gradients are finite."""
    part = case.build(torch.float32)
    signal = case.inputs(part)[1].float()
    for loud in (0.0, 1e-30, 1e-12, 1e-7, 1.0):
        for other in (0.0, 1e-30, 1e-12, 1e-7, 1.0):
            case.gradient(part, loud * signal.flip(-1), other * signal)


def silence_is_left(case: LossCase) -> None:
    """At a prediction of zeros each item and channel has a gradient: training can leave silence."""
    part = case.build(torch.float32)
    target = case.inputs(part)[1].float()
    gradient = case.gradient(part, torch.zeros_like(target), target)
    dead = (gradient == 0).all(-1).nonzero().tolist()
    expect(not dead, f"no gradient at a prediction of zeros for (item, channel) {dead}")


def gradient_is_of_the_value(case: LossCase) -> None:
    """The gradient is that of the figures, by finite differences in float64."""
    part = case.build()
    prediction, target = case.inputs(part)
    gradient = case.gradient(part, prediction, target)
    direction, step = noise(*prediction.shape, seed=9), 1e-7
    ends = [part(prediction + sign * step * direction, target).detach().sum() for sign in (1, -1)]
    measured = float((ends[0] - ends[1]) / (2 * step))
    given = float((gradient * direction).sum())
    # Along one direction contributions nearly cancel; their size, not their sum, sets the scale.
    scale = float((gradient * direction).square().sum().sqrt())
    expect(abs(measured - given) <= 1e-2 * scale, f"the slope is {measured:.4g}, the gradient says {given:.4g}")


def padding_does_not_count(case: LossCase) -> None:
    """What lies beyond `lengths` changes no figure and gets no gradient; full lengths are as none."""
    part = case.build()
    prediction, target = case.inputs(part)
    lengths = torch.tensor([case.samples, case.samples * 3 // 4, case.samples // 2 + 1])
    full = torch.full((3,), case.samples)
    expect_equal(part(prediction, target, lengths=full), part(prediction, target), "with full lengths")
    past = torch.arange(case.samples) >= lengths[:, None, None]
    figures = part(prediction, target, lengths=lengths)
    listed = part(prediction, target, lengths=lengths.tolist())
    expect_equal(listed, figures, "with lengths as a list", exact=True)
    expect(bool((figures > 0).all()), f"with lengths, different signals are at distances {figures.tolist()}")
    for seed, scale in ((5, 1.0), (6, 0.0)):
        junk = [torch.where(past, scale * noise(*x.shape, seed=seed), x) for x in (prediction, target)]
        expect_equal(part(*junk, lengths=lengths), figures, "with other padding")
    gradient = case.gradient(part, prediction, target, lengths=lengths)
    most = float(torch.where(past, gradient, 0).abs().max())
    expect(most == 0, f"padding gets a gradient of up to {most:.2g}")


LOSS_CHECKS = Suite(
    "loss",
    LossCase,
    (
        one_figure_an_item,
        zero_at_equality,
        different_shapes_are_refused,
        silence_gives_finite_gradients,
        silence_is_left,
        gradient_is_of_the_value,
        padding_does_not_count,
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
        materialized_from_meta_is_right,
    ),
)


def check_loss(config: Config | Any) -> None:
    """Runs the suite on the loss of a Config, or of a `LossCase`.

    Raises:
        AssertionError: a check fails; check, component and figures are named.
    """
    LOSS_CHECKS.check(config)
