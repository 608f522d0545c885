"""Predicates of tensors that decide between kernels of our own and torch's operations."""

import torch
from torch import Tensor


def is_plain(x: Tensor) -> bool:
    """True for ordinary tensors: compilers fuse by themselves, and they and vmap pass tensors without memory."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
    return type(x) is Tensor and not traced
