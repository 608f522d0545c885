"""Modules that are used and never trained."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn
from torch.func import functional_call

from .errors import PartitaError
from .fingerprints import uncompiled_state, weights_hash


class Frozen(nn.Module):
    """Holds a module outside the module tree: absent from state dict, optimizers, DDP and EMA.

    It is always in eval mode, follows the device but never the dtype, and is shared by deepcopy. `check` asserts that
    its weights are those it came with.
    """

    def __init__(self, module: nn.Module) -> None:
        """Freezes `module`."""
        super().__init__()
        object.__setattr__(self, "module", module.eval().requires_grad_(False))
        self.sha256 = weights_hash(uncompiled_state(module))

    module: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own."""
        return self.module(*args, **kwargs)

    def check(self) -> None:
        """Raises where the weights have changed, which nothing that trains should do.

        Raises:
            PartitaError: they have.
        """
        if weights_hash(uncompiled_state(self.module)) != self.sha256:
            raise PartitaError(f"the frozen {type(self.module).__name__} has changed")

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode."""
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # `fn` may move, cast or both; an empty tensor tells where to, and the dtype is kept.
        tensor = next(iter(self.module.state_dict().values()), None)
        if tensor is not None:
            self.module.to(device=fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device)).device)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def frozen_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Calls a module that this phase does not train: gradients pass through it, none stay in its parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, parameters | dict(module.named_buffers()), args, kwargs)
