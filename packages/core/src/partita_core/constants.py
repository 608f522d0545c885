"""Tensors that follow from a module's settings and are no part of its state."""

from typing import Any

import torch
from torch import Tensor

from .errors import PartitaError


class Constant:
    """A tensor that a module computes once, with a copy for each device and type that it is used in.

    It stands in for a buffer that is not saved. Such a buffer holds garbage once a module has been built on the meta
    device and materialized, as loaders of large models do; this one is made on the CPU whatever the default device.
    """

    def __init__(self, exact: Tensor) -> None:
        """Take the tensor, on the CPU, in float64 if it is of fractions."""
        if exact.device.type != "cpu":
            raise PartitaError(f"a constant is made on the CPU, this one is on {exact.device}")
        self.exact = exact
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor on a device, in a type; None for its own. Not to be written to."""
        dtype = self.exact.dtype if dtype is None else dtype
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.exact.to(device, dtype)  # copies of a traced graph are no tensors to be kept
        if (device, dtype) not in self._copies:
            with torch.inference_mode(False):
                self._copies[device, dtype] = self.exact.to(device, dtype)
        return self._copies[device, dtype]

    def like(self, x: Tensor) -> Tensor:
        """The tensor on the device and in the type of `x`."""
        return self.on(x.device, x.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Constant":
        return self

    def __reduce__(self) -> Any:
        return Constant, (self.exact,)
