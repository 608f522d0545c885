"""Precision: what runs in "float32" runs in at least that."""

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """`x` in float32 if it is of a half type; float32 and float64 pass as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
