"""State of an optimizer as tensors and JSON, and back, checked against the optimizer that it is loaded into."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from partita_core import PartitaError, check_finite, short_repr, shorten
from torch import Tensor

from .run import first_difference


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """State of an optimizer as tensors named `{parameter}.{key}`, and its groups as JSON values."""
    packed = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entries in packed["state"].items()
        for key, value in entries.items()
    }
    return tensors, packed["param_groups"]


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: Any) -> None:
    """Load what `pack_optimizer` returned into an optimizer of the same settings; only learning rates may differ.

    Raises:
        PartitaError: the state belongs to an optimizer of other parameters or settings, or is not finite.
    """
    own = optimizer.state_dict()["param_groups"]
    difference = _changed_settings(own, groups)
    expected = _state_after_zero_step(optimizer)
    shapes = {name: tuple(tensor.shape) for name, tensor in sorted(tensors.items())}
    for name, shape in shapes.items():
        if name not in expected:
            difference = difference or f"it has no state called {short_repr(name)}"
        elif shape != expected[name].shape:
            difference = difference or f"{name} was {shape}, now {tuple(expected[name].shape)}"
    stepped = {name.partition(".")[0] for name in tensors}
    missing = [name for name in expected if name.partition(".")[0] in stepped and name not in tensors]
    if missing:
        difference = difference or f"{missing[0]} is missing"
    if difference:
        raise PartitaError(f"the checkpoint belongs to another optimizer: {shorten(difference)}")
    cast = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    check_finite(cast, "the state of the optimizer")
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in cast.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": own})


@torch.no_grad()
def _state_after_zero_step(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State after a step with zero gradients at zero learning rate, which creates all state and changes no weight."""
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates):
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    return pack_optimizer(optimizer)[0]


def _changed_settings(own: list[dict[str, Any]], groups: Any) -> str:
    """First difference between the groups of a checkpoint and those of an optimizer; empty if there is none."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups) or len(groups) != len(own):
        return f"{short_repr(groups)} is not {len(own)} groups of parameters"
    for theirs, ours in zip(groups, own):
        # Learning rates are set before each step; torch adds and removes settings between versions.
        known = {name: value for name, value in ours.items() if name in theirs and name != "lr"}
        known = json.loads(json.dumps(known))  # JSON has lists in place of tuples
        found = first_difference({name: theirs[name] for name in known}, known)
        if found:
            return found
    return ""
