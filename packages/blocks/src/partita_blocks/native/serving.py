"""Conditions under which the kernels for training replace torch's operations."""

import torch
from torch import Tensor

from ..tensors import is_plain
from .build import kernels

# Elements from which the kernels are used; below, a call costs more than it computes.
MIN_SIZE = 2**16


def serves_training(x: Tensor, *parameters: Tensor | None) -> bool:
    """True if x is large, a gradient by a tensor is wanted, and the kernels are available and support all of them.

    They are for float32 on a CPU without autocast. Sizes of traced tensors are not read, which would fix them.
    """
    tensors = [x, *(tensor for tensor in parameters if tensor is not None)]
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors) or not is_plain(x):
        return False
    if x.numel() < MIN_SIZE:
        return False
    if any(tensor.device.type != "cpu" or tensor.dtype != torch.float32 for tensor in tensors):
        return False
    return not torch.is_autocast_enabled("cpu") and kernels() is not None
