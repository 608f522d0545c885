"""Optimizers, their schedules, and the exponential moving average of the weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from partita_core import PartitaError, Saved, check_finite
from partita_core.loading import check_weights
from partita_core.ranges import Count, NonNegative, Positive, Range, Ranged, Steps
from torch import Tensor, nn

from partita.objectives.objective import Objective, TrainState

_SCHEDULES: dict[str, Callable[[TrainState, "OptimizerConfig"], float]] = {
    "constant": lambda state, config: 1.0,
    "cosine": lambda state, config: config.final + (1 - config.final) * (1 + math.cos(math.pi * state.progress)) / 2,
    "inverse_sqrt": lambda state, config: (1 + state.step / config.decay_steps) ** -0.5,
}

# Far above any that learns; the steps of a higher one are beyond float32.
_HIGHEST_LR = 1e30


_Beta = Annotated[float, Range(0, 1, open_high=True)]


@dataclass(frozen=True)
class OptimizerConfig(Ranged):
    """How the parameters of one phase are moved.

    Attributes:
        name: the algorithm.
        lr: learning rate at its highest.
        betas: decay rates of the moments.
        weight_decay: decoupled for AdamW.
        schedule: of the learning rate: constant, a half cosine to `final`, or (1 + step / decay_steps) ** -0.5.
        warmup_steps: over which it rises from zero.
        decay_steps: of the inverse square root.
        final: what the cosine ends at, a fraction of `lr`.
        clip: the gradients' norm at most; None for no limit.
    """

    name: Literal["adamw", "radam"] = "adamw"
    lr: Annotated[float, Range(0, 1e30)] = 1.5e-4
    betas: tuple[_Beta, _Beta] = (0.8, 0.99)
    weight_decay: NonNegative = 1e-3
    schedule: Literal["constant", "cosine", "inverse_sqrt"] = "inverse_sqrt"
    warmup_steps: Steps = 0
    decay_steps: Count = 200_000
    final: NonNegative = 0.05
    clip: Positive | None = 1.0

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups."""
        kind = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}[self.name]
        return kind(groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)

    def lr_at(self, state: TrainState) -> float:
        """The learning rate of the step that is about to be taken."""
        warmup = min(1.0, (state.step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.lr * warmup * _SCHEDULES[self.schedule](state, self)


def kept_rates(optimizers: Mapping[str, OptimizerConfig], state: TrainState, planned: int) -> str:
    """One line on the learning rates of a run that is given more steps than planned; empty where nothing differs.

    They go on from where they were, and are not those of a run that was to have as many steps from its start.

    Args:
        optimizers: by phase.
        state: of the longer run, at its first step.
        planned: number of steps before.
    """
    anew = TrainState(state.step, state.total_steps)
    rates = {phase: (config.lr_at(state), config.lr_at(anew)) for phase, config in optimizers.items()}
    told = [f"{phase} {rate:.3g} (not {other:.3g})" for phase, (rate, other) in rates.items() if rate != other]
    if not told:
        return ""
    steps = f"{state.total_steps} steps, where {planned} were planned"
    what = f"learning rates go on from step {state.step}, and are not those of one run of as many steps"
    return f"{steps}: {what}: {', '.join(told)}"


class EMA:
    """A moving average of a module's floating tensors, kept in float32 beside it and swapped in where wanted.

    The decay rises from 1/11 towards its full value as (1 + n) / (10 + n), so that early averages forget the start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Starts at the module's weights."""
        if not 0 <= decay < 1:
            raise PartitaError(f"the EMA decay is {decay}; it must be in [0, 1)")
        self.decay = decay
        self.tensors = {name: tensor.detach().float().clone() for name, tensor in _floating(module)}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves towards the module's weights after optimizer step number `step`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        names, current = zip(*_floating(module))
        averages = [self.tensors[name] for name in names]
        torch._foreach_lerp_(averages, [tensor.detach().float() for tensor in current], 1 - keep)

    def load(self, tensors: Mapping[str, Tensor], source: Any) -> None:
        """Takes the averages of a checkpoint.

        Raises:
            PartitaError: they are of another module, or not finite.
        """
        check_weights(self.tensors, tensors, source)
        cast = {name: tensors[name].to(average.dtype) for name, average in self.tensors.items()}
        check_finite(cast, source)
        for name, average in self.tensors.items():
            average.copy_(cast[name])

    @contextmanager
    def swapped_in(self, module: nn.Module) -> Iterator[None]:
        """Within it, the module has the averaged weights and is in eval mode; afterwards all is as before."""
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
        module.train()  # a codec forgets what it was called with other weights
        for name, tensor in _floating(module):
            tensor.copy_(tensors[name])


def _floating(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, tensor) for name, tensor in module.state_dict().items() if tensor.is_floating_point())


@contextmanager
def averaged(objective: Objective, ema: EMA | None) -> Iterator[Saved]:
    """What the objective saves, in eval mode, with averaged weights if there are any; afterwards all is as before."""
    model = objective.model
    was_training = model.training
    with nullcontext() if ema is None else ema.swapped_in(model):
        try:
            yield objective.result.eval()
        finally:
            model.train(was_training)
