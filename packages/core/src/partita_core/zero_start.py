"""Networks whose output is zero at first, beside a path that works without them."""

import torch
from torch import nn
from torch.nn.utils import parametrize


def matrix_layers(network: nn.Module) -> list[nn.Module]:
    """Modules with a weight matrix, in the order of registration."""
    weights = ((module, getattr(module, "weight", None)) for module in network.modules())
    return [module for module, weight in weights if isinstance(weight, torch.Tensor) and weight.ndim > 1]


@torch.no_grad()
def set_to_zero(layer: nn.Module) -> None:
    """Set weight and bias of a layer to zero, in place; of a weight-normalized one, the magnitudes and the bias."""
    if parametrize.is_parametrized(layer, "weight"):
        layer.parametrizations.weight.original0.zero_()  # pyright: ignore
    else:
        layer.weight.zero_()  # pyright: ignore
    bias = getattr(layer, "bias", None)
    if isinstance(bias, torch.Tensor):
        bias.zero_()
