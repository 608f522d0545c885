"""Networks that start at zero, beside a path that works without them."""

from typing import TypeVar

import torch
from partita_core import PartitaError
from torch import nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def zero_last_layer(network: M) -> M:
    """Set the last layer of a network to zero, in place, so that its output is zero and its gradient is not.

    The last layer is the last module in the order of registration that has a weight matrix; of a weight-normalized
    one, the magnitudes are set to zero.

    Raises:
        PartitaError: the network has no layer.
    """
    layers = [module for module in network.modules() if isinstance(getattr(module, "weight", None), torch.Tensor)]
    layers = [module for module in layers if module.weight.ndim > 1]
    if not layers:
        raise PartitaError(f"{type(network).__name__} has no layer that could start at zero")
    last = layers[-1]
    if parametrize.is_parametrized(last, "weight"):
        last.parametrizations.weight.original0.zero_()  # pyright: ignore
    else:
        last.weight.zero_()  # pyright: ignore
    bias = getattr(last, "bias", None)
    if isinstance(bias, torch.Tensor):
        bias.zero_()
    return network
