"""Checks that every part passes, whatever its role: a part maps an equal-length batch of whole frames to another."""

import copy
import json
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from partita_core.configs import from_dict, to_dict
from partita_core.registry import Config
from partita_core.streams import Stream, UnboundedError
from torch import Tensor, nn

from ._common import Case, deviation, expect, expect_equal, expect_finite, expect_state, flatten, noise, state_of, total

# Free as far as the program lets it be; that it is, a second shape shows.
AUTO = torch.export.Dim.AUTO


@dataclass(frozen=True)
class PartCase(Case):
    """A part that maps `(batch, channels, units_in * frames)` to `(batch, ..., units_out * frames)`.

    Attributes:
        steps: two sizes of steps, over which the slope of a part is the same.
    """

    steps: ClassVar[tuple[float, float]] = (1e-7, 1e-5)

    @abstractmethod
    def units(self, part: Any) -> tuple[int, int]:
        """Steps of the input and of the output, along the last axis, in a frame."""

    @abstractmethod
    def inputs(self, part: Any, *, batch: int = 3, frames: int = 4, seed: int = 1) -> tuple[Tensor, ...]:
        """What `run` takes, batch first: the signal and what goes with it, in float64."""

    def run(self, part: Any, *inputs: Tensor) -> Any:
        """What training runs: `forward`."""
        return part(*inputs)

    def beside(self, part: Any, *inputs: Tensor) -> list[Tensor]:
        """What training learns of the same inputs beside the result: terms of the part's own."""
        return []

    def per_item(self, result: Any) -> list[Tensor]:
        """Those tensors of a result that have one row an item."""
        return flatten(result)

    def stream(self, part: Any, rest: tuple[Tensor, ...], width: int) -> Stream:
        """The stream of the part.

        Raises:
            UnboundedError: it has none.
        """
        raise UnboundedError("no stream")

    def exported(
        self, part: Any, inputs: tuple[Tensor, ...]
    ) -> list[tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]]:
        """What `torch.export` takes: modules, their inputs, and which axes of these are free."""
        free = [{0: AUTO} for _ in inputs]
        free[0][inputs[0].dim() - 1] = AUTO
        return [(part, inputs, tuple(free))]


def cast(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Floating inputs as `dtype`."""
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


# ------------------------------------------------------------------ evaluation


def eval_is_deterministic(case: PartCase) -> None:
    """In eval mode two calls agree bit for bit, and no random number is drawn."""
    part = case.build()
    inputs = case.inputs(part)
    first = case.run(part, *inputs)
    before = torch.get_rng_state()
    second = case.run(part, *inputs)
    expect(torch.equal(before, torch.get_rng_state()), "eval draws random numbers")
    expect_equal(second, first, "the second call", exact=True)


def eval_leaves_state_unchanged(case: PartCase) -> None:
    """Eval moves no parameter and no buffer, and the input stays as it was."""
    part = case.build()
    inputs = case.inputs(part)
    kept, before = [x.clone() for x in inputs], state_of(part)
    case.run(part, *inputs)
    expect_state(part, before, "eval")
    expect_equal(inputs, kept, "the input after the call", exact=True)


def batch_composition_does_not_matter(case: PartCase) -> None:
    """Each item of a batch, with its own layout, comes out as it does alone."""
    part = case.build()
    inputs = case.inputs(part)
    together = case.per_item(case.run(part, *inputs))
    for i in range(len(inputs[0])):
        alone = case.per_item(case.run(part, *(x[i : i + 1] for x in inputs)))
        expect_equal([t[i : i + 1] for t in together], alone, f"item {i} in a batch of {len(inputs[0])}")


# ------------------------------------------------------------------ gradients


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
    felt = gradient.detach().unflatten(-1, (-1, unit)) != 0  # batch, channels, frames, positions
    for what, axes in (("channel", (2, 3)), ("frame", (1, 3)), ("position within a frame", (0, 1, 2))):
        dead = (~felt.any(dim=axes)).nonzero()[:, -1].tolist()
        expect(not dead, f"no gradient reaches {what} {dead[:1]} of the input")


def gradients_reach_every_parameter(case: PartCase) -> None:
    """In training every parameter gets a gradient, finite and not all zero, by the result or by terms of its own."""
    part = case.build().train()
    parameters = {name: p for name, p in part.named_parameters() if p.requires_grad}
    if not parameters:
        return
    inputs = case.inputs(part)
    total([case.run(part, *inputs), *case.beside(part, *inputs)]).backward()
    for name, parameter in parameters.items():
        expect(parameter.grad is not None, f"{name} gets no gradient")
        expect_finite(parameter.grad, f"the gradient of {name}")
        expect(bool((parameter.grad != 0).any()), f"the gradient of {name} is zero everywhere")


def silence_is_finite(case: PartCase) -> None:
    """Results and gradients on digital silence are finite, in training and in eval mode."""
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


def two_forwards_in_one_graph(case: PartCase) -> None:
    """Two training forwards may share one backward: nothing that the first needs is changed by the second."""
    part = case.build().train()
    signal, *rest = case.inputs(part)
    signal.requires_grad_()
    other, *_ = case.inputs(part, seed=2)
    first, second = case.run(part, signal, *rest), case.run(part, other, *rest)
    (total(first) + (total(second) if any(t.requires_grad for t in flatten(second)) else 0)).backward()


# ------------------------------------------------------------------ types and copies


def parameters_have_dimensions(case: PartCase) -> None:
    """No parameter is 0-d, which sharding refuses; a learned gain is `(1,)`."""
    for name, parameter in case.build().named_parameters():
        expect(parameter.dim() > 0, f"{name} is 0-d; make it (1,)")


def runs_in_float64(case: PartCase) -> None:
    """A float64 part computes in float64 from end to end: in type, and in the smoothness of what it returns."""
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
    small, large = case.steps
    off = deviation(slope(small), slope(large))
    expect(off < 0.1, f"steps of {small:g} are lost in rounding (by {off:.2g}): something inside is not float64")


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


def state_dict_round_trip(case: PartCase) -> None:
    """The state dict holds all that training moves: loaded into another instance it gives the same results."""
    part = case.build().train()
    inputs = case.inputs(part)
    case.run(part, *inputs)
    other = case.build(seed=7)
    other.load_state_dict(part.eval().state_dict())
    expect_equal(case.run(other, *inputs), case.run(part, *inputs), "after loading the state dict", exact=True)


def config_round_trip(case: PartCase) -> None:
    """The Config comes back from JSON equal, and builds what the weights fit."""
    back = from_dict(Config, json.loads(json.dumps(to_dict(case.config))))
    expect(back == case.config, f"{back} came back of {case.config}")
    part, other = case.build(), replace(case, config=back).build(seed=7)
    expect(getattr(part, "config", None) == case.config, "what is built does not carry its Config; register it")
    other.load_state_dict(part.state_dict())
    inputs = case.inputs(part)
    expect_equal(case.run(other, *inputs), case.run(part, *inputs), "built from JSON", exact=True)


def builds_on_the_meta_device(case: PartCase) -> None:
    """Built without memory it has the same parameters and buffers: so a model is held against a file of weights."""
    with torch.device("meta"):
        shell = case.make()
    kinds = [{name: (t.shape, t.dtype) for name, t in part.state_dict().items()} for part in (shell, case.make())]
    different = sorted(name for name in kinds[0].keys() | kinds[1].keys() if kinds[0].get(name) != kinds[1].get(name))
    expect(not different, f"{different[:1]} differs between the meta device and the CPU")


@torch.no_grad()
def materialized_from_meta_is_right(case: PartCase) -> None:
    """Built on the meta device, given memory with anything in it and then its state dict, it gives the same results."""
    part = case.build()
    with torch.device("meta"):
        shell = case.make()
    shell = shell.to_empty(device="cpu").to(torch.float64).eval()
    for tensor in (*shell.parameters(), *shell.buffers()):
        tensor.fill_(float("nan") if tensor.is_floating_point() else 1)
    shell.load_state_dict(part.state_dict())
    inputs = case.inputs(part)
    expect_equal(case.run(shell, *inputs), case.run(part, *inputs), "materialized from the meta device", exact=True)


def exports(case: PartCase) -> None:
    """`torch.export` takes it in eval mode, with any batch size and number of frames, and computes the same.

    The program is run on both sides of the part's context, and so of its windows, chunks and tiles. A single item or
    frame is left out: to torch one is a size of its own.
    """
    part = case.build(torch.float32)
    reach = 1 + max(side or 0 for side in part.context)
    examples = case.exported(part, cast(case.inputs(part, batch=2, frames=4), torch.float32))
    sizes = [(2, 4), (3, 2), (2, 3), (3, 7), (2, 16), (2, max(2, reach)), (3, reach + 1), (2, 2 * reach + 3)]
    for i, (module, inputs, free) in enumerate(examples):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own
            program = torch.export.export(module, inputs, dynamic_shapes=free).module()
            for batch, frames in sizes:
                other = cast(case.inputs(part, batch=batch, frames=frames, seed=2), torch.float32)
                given = case.exported(part, other)[i][1]
                what = f"exported at 4 frames, run on {batch} items of {frames}"
                expect_equal(program(*given), module(*given), what)


EVERY_PART: tuple[Callable[[Any], None], ...] = (
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
    materialized_from_meta_is_right,
    exports,
)
