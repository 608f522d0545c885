"""Half precision on disk: weights that are rounded to float16, and stored as float16 where that loses nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Largest relative error of rounding to the nearest float16.
_UNIT = 2.0**-11


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round the matrices and kernels of a module to values that float16 holds, in place; dtypes do not change.

    Fingerprints become those of the rounded weights. Three kinds of tensors keep their values: vectors (biases, gains,
    statistics), which are few numbers that may need their precision; integers; and matrices that float16 cannot hold,
    because a value overflows, or is wrong by more than 2^-11 of itself and of the root mean square of its row.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.squeeze().ndim > 1 and _fits(tensor, rounded := tensor.half()):
            tensor.copy_(rounded)


def exactly_half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, as float16 where that holds every value exactly."""
    return {
        name: half
        if tensor.is_floating_point() and torch.equal((half := tensor.half()).double(), tensor.double())
        else tensor
        for name, tensor in tensors.items()
    }


def _fits(tensor: Tensor, rounded: Tensor) -> bool:
    rows = tensor.squeeze().flatten(1).double()
    error = (rounded.squeeze().flatten(1).double() - rows).abs()  # infinite where a value overflows
    scale = rows.square().mean(dim=1, keepdim=True).sqrt()
    return bool((error <= _UNIT * torch.maximum(rows.abs(), scale)).all())
