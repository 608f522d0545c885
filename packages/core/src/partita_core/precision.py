"""Precision and preparation of models for inference; "float32" means at least float32."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .errors import PartitaError, short_repr

Precision = Literal["float32", "bf16"]
"""Precision of inference: at least float32, or bfloat16 for matrix products."""


def check_precision(precision: Any) -> None:
    """Check that `precision` is a `Precision`.

    Raises:
        PartitaError: it is not; the valid names are given.
    """
    if not isinstance(precision, str) or precision not in get_args(Precision):
        raise PartitaError(f"precision is {short_repr(precision)}; 'float32' or 'bf16' is expected")


def upcast(x: Tensor) -> Tensor:
    """Cast half-precision tensors to float32; float32 and float64 are returned as is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def compile_frozen(*modules: nn.Module) -> None:
    """Compile modules whose weights are final, separately for each input shape."""
    for module in modules:
        # Dynamic shapes take many times as long to compile, and run slower than uncompiled code.
        module.compile(dynamic=False, options={"freezing": True})


def fold_parametrizations(root: nn.Module) -> None:
    """Replace parametrized weights, such as those of weight norm, by plain frozen parameters.

    torch's `remove_parametrizations` deletes properties of the module's class, which deep copies share, and so breaks
    the copies.
    """
    for module in list(root.modules()):
        if not parametrize.is_parametrized(module):
            continue
        folded = {name: getattr(module, name).detach() for name in module.parametrizations}  # pyright: ignore
        del module.parametrizations
        module.__class__ = type(module).__mro__[1]
        for name, tensor in folded.items():
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
