"""Tensors from the arrays, lists and numbers that a caller may hold instead."""

from typing import Any

import numpy
import torch
from torch import Tensor

from .errors import PartitaError, first_line


def as_tensor(value: Any, what: str) -> Tensor:
    """A tensor of the numbers in `value`; a tensor is returned as it is.

    Args:
        value: a tensor, an array, a number, or nested lists of these.
        what: name of the argument, for messages.

    Raises:
        PartitaError: it holds something else, or lists of different lengths.
    """
    if isinstance(value, Tensor):
        return value
    try:
        if hasattr(value, "__array__"):
            array = numpy.asarray(value)
            # A copy of its own: torch takes neither read-only arrays, reversed ones nor those of another byte order.
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        if isinstance(value, (list, tuple)) and any(not isinstance(item, (int, float)) for item in value):
            return torch.stack([as_tensor(item, what) for item in value])
        return torch.tensor(value)
    except PartitaError:
        raise
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        kind = type(value).__name__
        raise PartitaError(
            f"{what} must be numbers of one shape, and this {kind} is not: {first_line(error)}"
        ) from None


def as_integers(value: Any, what: str) -> Tensor:
    """`as_tensor` as int64, of whole numbers only.

    Raises:
        PartitaError: it holds anything but integers of at most 64 bits.
    """
    tensor = as_tensor(value, what)
    if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        raise PartitaError(f"{what} of type {tensor.dtype}; integers are expected")
    return tensor.long()
