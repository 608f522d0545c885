"""Pytest plugin `-p rounding`: matrix products and convolutions whose order of summation depends on the shape.

It emulates processors on which the result for an item depends on the size of the batch, up to rounding. Exact results,
such as sums of small integers, stay exact.
"""

import warnings
import zlib

import torch
from torch import Tensor

_aten = torch.ops.aten


def _order(count: int, *inputs: Tensor) -> Tensor:
    """A permutation of `count` terms that depends only on the shapes of the inputs."""
    seed = zlib.crc32(repr([tuple(x.shape) for x in inputs]).encode())
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def mm(a: Tensor, b: Tensor) -> Tensor:
    order = _order(len(b), a, b)
    return _aten.mm.out(a[:, order], b[order], out=a.new_empty(0))


def addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    order = _order(len(b), a, b)
    return _aten.addmm.out(bias, a[:, order], b[order], beta=beta, alpha=alpha, out=a.new_empty(0))


def bmm(a: Tensor, b: Tensor) -> Tensor:
    order = _order(b.shape[1], a, b)
    return _aten.bmm.out(a[:, :, order], b[:, order], out=a.new_empty(0))


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    shared = x.shape[1] // groups  # number of channels per group, which are summed
    order = _order(shared, x, weight)
    channels = torch.cat([order + group * shared for group in range(groups)])
    x = torch.empty_like(x).copy_(x[:, channels])  # keeps the memory format channels_last
    weight = weight[channels] if transposed else weight[:, order]
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    return _aten._convolution(x, weight, bias, *rest, False, False, True, True)


_LIBRARY = torch.library.Library("aten", "IMPL")
with warnings.catch_warnings(action="ignore"):  # torch warns that its own kernels are overridden
    for operation in (mm, addmm, bmm, convolution):
        _LIBRARY.impl(operation.__name__, operation, "CPU")
