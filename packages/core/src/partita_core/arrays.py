"""Conversion of arrays, nested lists and numbers to tensors."""

from typing import Any

import numpy
import torch
from torch import Tensor

from .errors import PartitaError, first_line


def as_tensor(value: Any, what: str) -> Tensor:
    """Convert `value` to a tensor; tensors are returned as is.

    Args:
        value: tensor, array, number, or nested lists of these.
        what: name of the argument in messages.

    Raises:
        PartitaError: `value` holds anything else, or lists of different lengths.
    """
    if isinstance(value, Tensor):
        return value
    try:
        if hasattr(value, "__array__"):
            array = numpy.asarray(value)
            # Copy, since torch supports neither read-only arrays, negative strides nor foreign byte orders.
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        if isinstance(value, (list, tuple)) and any(not isinstance(item, (int, float)) for item in value):
            return torch.stack([as_tensor(item, what) for item in value])
        return torch.tensor(value)
    except PartitaError:
        raise
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        kind = type(value).__name__
        raise PartitaError(
            f"{what} must be a rectangular array of numbers; this {kind} is not: {first_line(error)}"
        ) from None


def as_integers(value: Any, what: str) -> Tensor:
    """Convert integers to an int64 tensor; see `as_tensor`.

    Raises:
        PartitaError: `value` holds anything but integers of at most 64 bits.
    """
    tensor = as_tensor(value, what)
    if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        raise PartitaError(f"the dtype of {what} is {tensor.dtype}; integers are expected")
    return tensor.long()
