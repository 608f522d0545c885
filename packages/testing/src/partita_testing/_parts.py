"""Checks for parts of every role: maps from an equal-length batch of full frames to another."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from partita_core.streams import Stream, UnboundedError
from torch import Tensor, nn

from ._common import (
    Case,
    check,
    expect,
    expect_equal,
    expect_finite,
    expect_state,
    flatten,
    state_of,
    total,
)

# Dynamic if the program allows it; other shapes then test that it is.
AUTO = torch.export.Dim.AUTO

# Number of random draws in which a part reaches all of its input.
_DRAWS = 16


@dataclass(frozen=True)
class PartCase(Case):
    """A part that maps `(batch, channels, units_in * frames)` to `(batch, ..., units_out * frames)`.

    Attributes:
        steps: two sizes of steps, over which the slope of a part is the same.
    """

    steps: ClassVar[tuple[float, float]] = (1e-7, 1e-5)

    @abstractmethod
    def units(self, part: Any) -> tuple[int, int]:
        """Steps per frame of the input and of the output, along the last axis."""

    @abstractmethod
    def inputs(self, part: Any, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """Inputs of `run`, batch first, in float64: the signal and further inputs."""

    def run(self, part: Any, *inputs: Tensor) -> Any:
        """Run what training runs: `forward`."""
        return part(*inputs)

    def auxiliary_losses(self, part: Any, *inputs: Tensor) -> list[Tensor]:
        """Auxiliary losses that the part adds in training, for the same inputs."""
        return []

    def per_item(self, result: Any) -> list[Tensor]:
        """The tensors of a result that have one row per item."""
        return flatten(result)

    def stream(self, part: Any, rest: tuple[Tensor, ...], width: int) -> Stream:
        """Start a stream of the part.

        Raises:
            UnboundedError: it cannot be streamed.
        """
        raise UnboundedError("no stream")

    def exported(
        self, part: Any, inputs: tuple[Tensor, ...]
    ) -> list[tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]]:
        """Modules to export, with their inputs and the dynamic axes of these."""
        free = [{0: AUTO} for _ in inputs]
        free[0][inputs[0].dim() - 1] = AUTO
        return [(part, inputs, tuple(free))]


def cast(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Cast floating-point inputs to `dtype`."""
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


# ------------------------------------------------------------------ evaluation


@check(fix="make everything random in forward depend on training mode or on a seed argument")
def eval_is_deterministic(case: PartCase) -> None:
    """Two calls in eval mode agree bit for bit and draw no random numbers."""
    part = case.build()
    inputs = case.inputs(part)
    first = case.run(part, *inputs)
    before = torch.get_rng_state()
    second = case.run(part, *inputs)
    expect(torch.equal(before, torch.get_rng_state()), "eval draws random numbers")
    expect_equal(second, first, "the second call", exact=True)


@check(fix="write to parameters and buffers in training mode only, and never to the input in place")
def eval_leaves_state_unchanged(case: PartCase) -> None:
    """Eval mode changes no parameter, no buffer and not the input."""
    part = case.build()
    inputs = case.inputs(part)
    kept, before = [x.clone() for x in inputs], state_of(part)
    case.run(part, *inputs)
    expect_state(part, before, "eval")
    expect_equal(inputs, kept, "the input after the call", exact=True)


@check(eval_is_deterministic, fix="compute nothing over the batch axis in eval mode")
def batch_composition_does_not_matter(case: PartCase) -> None:
    """Each item of a batch, with its own layout, gives the same result as alone."""
    part = case.build()
    inputs = case.inputs(part)
    together = case.per_item(case.run(part, *inputs))
    for i in range(len(inputs[0])):
        alone = case.per_item(case.run(part, *(x[i : i + 1] for x in inputs)))
        expect_equal([t[i : i + 1] for t in together], alone, f"item {i} in a batch of {len(inputs[0])}")


# ------------------------------------------------------------------ gradients


@check(fix="detach nothing on the path from the input to the result, and use all of the input")
def gradients_reach_the_input(case: PartCase) -> None:
    """In training every item, channel, frame and position within a frame of the input gets a gradient.

    Parts that drop channels or frames at random have several draws to reach all of them.
    """
    part = case.build().train()
    signal, *rest = case.inputs(part)
    signal.requires_grad_()
    unit, dead = case.units(part)[0], ""
    for _ in range(_DRAWS):
        total(case.run(part, signal, *rest)).backward()
        gradient = signal.grad
        expect(gradient is not None, "the input has no gradient")
        assert gradient is not None
        expect_finite(gradient, "the gradient of the input")
        dead = _unreached(gradient.detach().unflatten(-1, (-1, unit)) != 0)
        if not dead:
            return
    expect(not dead, f"no gradient reaches {dead} of the input")


def _unreached(reached: Tensor) -> str:
    """Name the first channel, frame or position of `(batch, channels, frames, positions)` that is never reached."""
    for what, axes in (("channel", (2, 3)), ("frame", (1, 3)), ("position within a frame", (0, 1, 2))):
        dead = (~reached.any(dim=axes)).nonzero()[:, -1].tolist()
        if dead:
            return f"{what} {dead[:1]}"
    return ""


@check(fix="use the parameter, or register it as a buffer")
def gradients_reach_every_parameter(case: PartCase) -> None:
    """In training every parameter gets a finite, nonzero gradient, from the result or from auxiliary losses."""
    part = case.build().train()
    parameters = {name: p for name, p in part.named_parameters() if p.requires_grad}
    if not parameters:
        return
    inputs = case.inputs(part)
    total([case.run(part, *inputs), *case.auxiliary_losses(part, *inputs)]).backward()
    for name, parameter in parameters.items():
        expect(parameter.grad is not None, f"{name} gets no gradient")
        expect_finite(parameter.grad, f"the gradient of {name}")
        expect(bool((parameter.grad != 0).any()), f"the gradient of {name} is zero everywhere")


@check(
    fix="detach metrics, and add an epsilon where the part divides by, or takes the root or logarithm of, what is zero "
    "for silence"
)
def silence_is_finite(case: PartCase) -> None:
    """Results and gradients for digital silence are finite, in training and in eval mode."""
    part = case.build(torch.float32)
    signal, *rest = cast(case.inputs(part), torch.float32)
    for mode in (False, True):
        part.train(mode)
        silence = torch.zeros_like(signal).requires_grad_()
        result = case.run(part, silence, *rest)
        expect_finite(result, "silence, training" if mode else "silence, eval")
        if mode:
            total(result).backward()
            expect_finite(silence.grad, "the gradient on silence")
            gradients = {name: p.grad for name, p in part.named_parameters() if p.grad is not None}
            for name, gradient in gradients.items():
                expect_finite(gradient, f"the gradient of {name} on silence")


@check(fix="use buffers as clones in forward, since updating them in place invalidates the graph")
def two_forwards_in_one_graph(case: PartCase) -> None:
    """Two training forwards can share one backward: the second changes no tensor that the first needs."""
    part = case.build().train()
    signal, *rest = case.inputs(part)
    signal.requires_grad_()
    other, *_ = case.inputs(part, seed=2)
    first, second = case.run(part, signal, *rest), case.run(part, other, *rest)
    (total(first) + (total(second) if any(t.requires_grad for t in flatten(second)) else 0)).backward()
