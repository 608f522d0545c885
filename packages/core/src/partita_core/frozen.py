"""Frozen modules: used by a model, never trained, and not part of its state."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn
from torch.func import functional_call

from .errors import PartitaError
from .fingerprints import uncompiled_state, weights_hash


class Frozen(nn.Module):
    """Wrapper that keeps a module out of the module tree: not in state dict, optimizers, DDP or EMA.

    The module is always in eval mode, follows the device but not the dtype of its parent, and is shared by deepcopy.
    `check` verifies that its weights have not changed.
    """

    def __init__(self, module: nn.Module) -> None:
        """Freeze `module`."""
        super().__init__()
        object.__setattr__(self, "module", module.eval().requires_grad_(False))
        self.sha256 = weights_hash(uncompiled_state(module))

    module: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self.module(*args, **kwargs)

    def check(self) -> None:
        """Check that the weights are those at construction.

        Raises:
            PartitaError: they have changed.
        """
        if weights_hash(uncompiled_state(self.module)) != self.sha256:
            raise PartitaError(
                f"the weights of the frozen {type(self.module).__name__} have changed; exclude it from training"
            )

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the module stays in eval mode."""
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # `fn` may move and cast. Applied to an empty tensor it gives the device; the dtype is kept.
        tensor = next(iter(self.module.state_dict().values()), None)
        if tensor is not None:
            self.module.to(device=fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device)).device)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def frozen_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module with detached parameters: gradients pass through it but do not reach its parameters."""
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, parameters | dict(module.named_buffers()), args, kwargs)
