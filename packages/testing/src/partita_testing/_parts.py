"""Checks for parts of every role: maps from an equal-length batch of full frames to another."""

import copy
import json
import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from partita_core.configs import from_dict, to_dict
from partita_core.registry import Config
from partita_core.streams import Stream, UnboundedError
from torch import Tensor, nn

from ._common import (
    Case,
    Check,
    check,
    deviation,
    expect,
    expect_equal,
    expect_finite,
    expect_state,
    flatten,
    noise,
    state_of,
    total,
)

# Dynamic if the program allows it; other shapes then test that it is.
AUTO = torch.export.Dim.AUTO


@dataclass(frozen=True)
class PartCase(Case):
    """Case of a part that maps `(batch, channels, units_in * frames)` to `(batch, ..., units_out * frames)`."""

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
    """In training every item, channel, frame and position within a frame of the input gets a gradient."""
    part = case.build().train()
    signal, *rest = case.inputs(part)
    signal.requires_grad_()
    total(case.run(part, signal, *rest)).backward()
    gradient = signal.grad
    expect(gradient is not None, "the input has no gradient")
    assert gradient is not None
    expect_finite(gradient, "the gradient of the input")
    unit = case.units(part)[0]
    reached = gradient.detach().unflatten(-1, (-1, unit)) != 0  # batch, channels, frames, positions
    for what, axes in (("channel", (2, 3)), ("frame", (1, 3)), ("position within a frame", (0, 1, 2))):
        dead = (~reached.any(dim=axes)).nonzero()[:, -1].tolist()
        expect(not dead, f"no gradient reaches {what} {dead[:1]} of the input")


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


@check(fix="add an epsilon where the part divides by, or takes the root or logarithm of, what is zero for silence")
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


# ------------------------------------------------------------------ types and copies


@check(fix="give it the shape (1,)")
def parameters_have_dimensions(case: PartCase) -> None:
    """No parameter is 0-d, since sharding does not support it."""
    for name, parameter in case.build().named_parameters():
        expect(parameter.dim() > 0, f"{name} is 0-d")


@check(fix="create tensors in the dtype of the input or the weights, and upcast half types only")
def runs_in_float64(case: PartCase) -> None:
    """A float64 part computes in float64 throughout: by the dtype and by the smoothness of its results."""
    part = case.build()
    signal, *rest = case.inputs(part)
    for training in (True, False):
        part.train(training)
        for tensor in flatten(case.run(part, signal, *rest)):
            if tensor.is_floating_point():
                expect(tensor.dtype == torch.float64, f"a float64 part returns {tensor.dtype}")
    direction = noise(*signal.shape, seed=9)

    @torch.no_grad()
    def slope(step: float) -> Tensor:
        ends = [case.per_item(case.run(part, signal + sign * step * direction, *rest)) for sign in (1, -1)]
        return torch.cat([((a - b) / (2 * step)).flatten() for a, b in zip(*ends) if a.is_floating_point()])

    if any(not t.is_floating_point() for t in case.per_item(case.run(part, signal, *rest))):
        return  # codes have no slope
    error = deviation(slope(1e-7), slope(1e-5))
    expect(error < 0.1, f"slopes over steps of 1e-7 and 1e-5 differ by {error:.2g}: an operation is not in float64")


@check(fix="upcast the input of operations that need float32 and run them with autocast disabled")
def runs_under_autocast(case: PartCase) -> None:
    """Training under bfloat16 autocast gives finite results and gradients."""
    part = case.build(torch.float32).train()
    signal, *rest = cast(case.inputs(part), torch.float32)
    signal.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = case.run(part, signal, *rest)
    expect_finite(result, "under autocast")
    total(result).backward()
    expect_finite(signal.grad, "the gradient under autocast")


@check(fix="keep tensors as parameters, buffers or partita_core.Constant")
def deepcopy_is_independent(case: PartCase) -> None:
    """A deep copy, taken after training, gives the same results and shares no tensor."""
    part = case.build().train()
    inputs = case.inputs(part)
    case.run(part, *inputs)
    part.eval()
    before = case.run(part, *inputs)
    twin = copy.deepcopy(part)
    expect_equal(case.run(twin, *inputs), before, "the copy", exact=True)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()
    expect_equal(case.run(part, *inputs), before, "the original after its copy was cleared", exact=True)


@check(fix="register everything that training changes as a parameter or persistent buffer")
def state_dict_round_trip(case: PartCase) -> None:
    """The state dict holds everything that training changes: loaded into another instance it gives the same results."""
    part = case.build().train()
    inputs = case.inputs(part)
    case.run(part, *inputs)
    other = case.build(seed=7)
    other.load_state_dict(part.eval().state_dict())
    expect_equal(case.run(other, *inputs), case.run(part, *inputs), "after loading the state dict", exact=True)


@check(fix="register the component with @register, with settings of plain types")
def config_round_trip(case: PartCase) -> None:
    """The Config equals itself after a round trip through JSON, and builds a part that fits the weights."""
    back = from_dict(Config, json.loads(json.dumps(to_dict(case.config))))
    expect(back == case.config, f"{case.config} became {back}")
    part, other = case.build(), replace(case, config=back).build(seed=7)
    expect(getattr(part, "config", None) == case.config, "the part does not have its Config as the attribute `config`")
    other.load_state_dict(part.state_dict())
    inputs = case.inputs(part)
    expect_equal(case.run(other, *inputs), case.run(part, *inputs), "built from JSON", exact=True)


@check(fix="let shapes and dtypes depend on settings only, not on the device")
def builds_on_the_meta_device(case: PartCase) -> None:
    """Built on the meta device it has the same parameters and buffers, as loading requires."""
    with torch.device("meta"):
        shell = case.make()
    kinds = [{name: (t.shape, t.dtype) for name, t in part.state_dict().items()} for part in (shell, case.make())]
    different = sorted(name for name in kinds[0].keys() | kinds[1].keys() if kinds[0].get(name) != kinds[1].get(name))
    expect(not different, f"{different[:1]} differs between the meta device and the CPU")


@check(builds_on_the_meta_device, fix="replace non-persistent buffers by partita_core.Constant")
@torch.no_grad()
def materializes_from_meta(case: PartCase) -> None:
    """Built on the meta device, given uninitialized memory and then its state dict, it gives the same results."""
    part = case.build()
    with torch.device("meta"):
        shell = case.make()
    shell = shell.to_empty(device="cpu").to(torch.float64).eval()
    for tensor in (*shell.parameters(), *shell.buffers()):
        tensor.fill_(float("nan") if tensor.is_floating_point() else 1)
    shell.load_state_dict(part.state_dict())
    inputs = case.inputs(part)
    expect_equal(case.run(shell, *inputs), case.run(part, *inputs), "materialized from the meta device", exact=True)


@check(eval_is_deterministic, fix="avoid Python branches on values and sizes in forward")
def exports(case: PartCase) -> None:
    """`torch.export` works in eval mode; the program gives the same results for any batch size and number of frames.

    The program is run for numbers of frames below and above the part's context, and so its windows, chunks and tiles.
    Sizes of 1 are not tested, since torch specializes on them.
    """
    part = case.build(torch.float32)
    reach = 1 + max(side or 0 for side in part.context)
    examples = case.exported(part, cast(case.inputs(part, batch=2, frames=4), torch.float32))
    sizes = [(2, 4), (3, 2), (2, 3), (3, 7), (2, 16), (2, max(2, reach)), (3, reach + 1), (2, 2 * reach + 3)]
    for i, (module, inputs, free) in enumerate(examples):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # from the exporter
            program = torch.export.export(module, inputs, dynamic_shapes=free).module()
            for batch, frames in sizes:
                other = cast(case.inputs(part, batch=batch, frames=frames, seed=2), torch.float32)
                given = case.exported(part, other)[i][1]
                what = f"exported at 4 frames, run on {batch} items of {frames}"
                expect_equal(program(*given), module(*given), what)


EVERY_PART: tuple[Check, ...] = (
    eval_is_deterministic,
    eval_leaves_state_unchanged,
    batch_composition_does_not_matter,
    gradients_reach_the_input,
    gradients_reach_every_parameter,
    silence_is_finite,
    two_forwards_in_one_graph,
    parameters_have_dimensions,
    runs_in_float64,
    runs_under_autocast,
    deepcopy_is_independent,
    state_dict_round_trip,
    config_round_trip,
    builds_on_the_meta_device,
    materializes_from_meta,
    exports,
)
