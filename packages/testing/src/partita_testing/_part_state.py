"""Checks of dtypes, copies, saving and export, for parts of every role; and the list of all checks of parts."""

import copy
import json
import warnings
from dataclasses import replace

import torch
from partita_core.configs import from_dict, to_dict
from partita_core.registry import Config
from torch import Tensor

from ._common import Check, check, deviation, expect, expect_equal, expect_finite, flatten, noise, total
from ._parts import (
    PartCase,
    batch_composition_does_not_matter,
    cast,
    eval_is_deterministic,
    eval_leaves_state_unchanged,
    gradients_reach_every_parameter,
    gradients_reach_the_input,
    silence_is_finite,
    two_forwards_in_one_graph,
)

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
    small, large = case.steps
    error = deviation(slope(small), slope(large))
    expect(
        error < 0.1,
        f"slopes over steps of {small:g} and {large:g} differ by {error:.2g}: an operation is not in float64",
    )


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
