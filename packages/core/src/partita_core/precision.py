"""Precision: what runs in "float32" runs in at least that."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .errors import PartitaError, short_repr

Precision = Literal["float32", "bf16"]
"""Of inference: at least float32, or bfloat16 where it is multiplied."""


def check_precision(precision: Any) -> None:
    """Raise a `PartitaError` for what is no `Precision`."""
    if not isinstance(precision, str) or precision not in get_args(Precision):
        raise PartitaError(f"precision is {short_repr(precision)}; 'float32' or 'bf16' is expected")


def upcast(x: Tensor) -> Tensor:
    """`x` in float32 if it is of a half type; float32 and float64 pass as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def compile_frozen(*modules: nn.Module) -> None:
    """Compiles modules whose weights do not change any more, for each shape as it comes."""
    for module in modules:
        # Dynamic shapes take many times as long to compile, and run slower than not compiled.
        module.compile(dynamic=False, options={"freezing": True})
