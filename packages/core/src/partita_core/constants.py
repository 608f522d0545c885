"""Constant tensors of modules, derived from settings and not part of the state dict."""

from typing import Any

import torch
from torch import Tensor

from .errors import PartitaError


class Constant:
    """A tensor that a module computes once, with a cached copy per device and dtype.

    Use it in place of a non-persistent buffer. Such buffers hold garbage after a module has been built on the meta
    device and materialized, as loaders of large models do. A Constant always lives on the CPU.
    """

    def __init__(self, exact: Tensor) -> None:
        """Take the exact tensor, on the CPU, and in float64 if it is not of integers."""
        if exact.device.type != "cpu":
            raise PartitaError(f"a constant is on {exact.device}; compute it with device='cpu'")
        self.exact = exact
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        """Return the tensor on a device and in a dtype, None for its own; do not write to it."""
        dtype = self.exact.dtype if dtype is None else dtype
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.exact.to(device, dtype)  # tensors of a traced graph must not be cached
        if (device, dtype) not in self._copies:
            with torch.inference_mode(False):
                self._copies[device, dtype] = self.exact.to(device, dtype)
        return self._copies[device, dtype]

    def like(self, x: Tensor) -> Tensor:
        """Return the tensor on the device and in the dtype of `x`."""
        return self.on(x.device, x.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Constant":
        return self

    def __reduce__(self) -> Any:
        return Constant, (self.exact,)
