"""Exponential moving average of the weights of a model, swapped in for evaluation and saving."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from partita_core import PartitaError, Saved, check_finite
from partita_core.loading import check_weights
from torch import Tensor, nn

from partita.objectives.objective import Objective


class EMA:
    """A moving average of the floating-point tensors of a module, kept in float32.

    The decay rises from 1/11 to its full value as (1 + n) / (10 + n), so that early averages forget the initialization.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the weights of `module`.

        Raises:
            PartitaError: the decay is not in [0, 1).
        """
        if not 0 <= decay < 1:
            raise PartitaError(f"the EMA decay is {decay}; it must be in [0, 1)")
        self.decay = decay
        self.tensors = {name: tensor.detach().float().clone() for name, tensor in _floating(module)}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the weights of `module` after optimizer step number `step`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        names, current = zip(*_floating(module))
        averages = [self.tensors[name] for name in names]
        torch._foreach_lerp_(averages, [tensor.detach().float() for tensor in current], 1 - keep)

    def load(self, tensors: Mapping[str, Tensor], source: Any) -> None:
        """Load the averages of a checkpoint.

        Raises:
            PartitaError: they belong to another module, or are not finite.
        """
        check_weights(self.tensors, tensors, source)
        cast = {name: tensors[name].to(average.dtype) for name, average in self.tensors.items()}
        check_finite(cast, source)
        for name, average in self.tensors.items():
            average.copy_(cast[name])

    @contextmanager
    def swapped_in(self, module: nn.Module) -> Iterator[None]:
        """Give `module` the averaged weights, in eval mode, for the duration of the context."""
        original = {name: tensor.detach().clone() for name, tensor in _floating(module)}
        was_training = module.training
        self._write(module, self.tensors)
        module.eval()
        try:
            yield
        finally:
            self._write(module, original)
            module.train(was_training)

    @staticmethod
    @torch.no_grad()
    def _write(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        module.train()  # drops the ids that a codec has for its other weights
        for name, tensor in _floating(module):
            tensor.copy_(tensors[name])


def _floating(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in module.state_dict().items() if tensor.is_floating_point())


@contextmanager
def averaged(objective: Objective, ema: EMA | None) -> Iterator[Saved]:
    """The result of an objective in eval mode, with the averaged weights if there are any, restored afterwards."""
    model = objective.model
    was_training = model.training
    with nullcontext() if ema is None else ema.swapped_in(model):
        try:
            yield objective.result.eval()
        finally:
            model.train(was_training)
