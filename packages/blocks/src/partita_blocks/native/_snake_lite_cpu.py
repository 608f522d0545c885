"""SnakeLite and its gradients on a CPU in float32: one kernel each, so that every tensor is read or written once.

The formula is that of `activations`; the kernels are those of `snake_lite.hpp`, which must be available.
"""

import torch
from torch import Tensor

from .build import loaded_kernels


def forward(x: Tensor, beta: Tensor) -> Tensor:
    """SnakeLite of `(batch, channels, length)` with betas `(channels, 1)`, identical for any number of threads."""
    x, beta = x.contiguous(), _betas(x, beta)
    y = torch.empty_like(x)
    loaded_kernels().partita_snake_lite(x.data_ptr(), beta.data_ptr(), y.data_ptr(), *_sizes(x))
    return y


def backward(x: Tensor, beta: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of beta, identical at each call and for any number of threads."""
    x, beta, grad = x.contiguous(), _betas(x, beta), grad.contiguous()
    by_x, by_beta = torch.empty_like(x), torch.empty_like(beta)
    tensors = (x, beta, grad, by_x, by_beta)
    loaded_kernels().partita_snake_lite_backward(*(tensor.data_ptr() for tensor in tensors), *_sizes(x))
    return by_x, by_beta


def _betas(x: Tensor, beta: Tensor) -> Tensor:
    """One beta per channel; torch raises for any other number, for which the kernels would read out of bounds."""
    return beta.expand(x.shape[1], 1).contiguous()


def _sizes(x: Tensor) -> tuple[int, int, int, int]:
    batch, channels, length = x.shape
    return batch * channels, channels, length, torch.get_num_threads()
