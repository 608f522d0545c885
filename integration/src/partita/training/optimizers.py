"""Optimizers, registered under the role `optimizer`: AdamW, RAdam, and Muon with AdamW."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from partita_core import Config, PartitaError, component_field, register
from partita_core.ranges import NonNegative, Positive, Proportion, Range
from torch import Tensor

from partita.objectives.objective import TrainState

from .schedules import InverseSqrt, Schedule

Beta = Annotated[float, Range(0, 1, open_high=True)]
"""Decay rates of running moments."""


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """Optimizer of the parameters of one phase, with its learning rate and gradient clipping.

    A subclass adds the settings of its algorithm, and implements `build`.

    Attributes:
        lr: peak learning rate.
        weight_decay: decoupled weight decay.
        schedule: learning rate over the run.
        clip: maximum norm of the gradient; None for no limit.
    """

    lr: Annotated[float, Range(0, 1e30)] = 1.5e-4  # larger steps than that overflow float32
    weight_decay: NonNegative = 1e-3
    schedule: Schedule = component_field("schedule", default=InverseSqrt())
    clip: Positive | None = 1.0

    @abstractmethod
    def build(self, *, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer of parameter groups as `Objective.parameter_groups` returns them."""

    def lr_at(self, state: TrainState) -> float:
        """Learning rate of the step that is about to be taken."""
        return self.schedule.lr_at(self.lr, state)

    @classmethod
    def example(cls) -> Self:
        """The defaults."""
        return cls()


@register("optimizer/adamw")
@dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """Adam with decoupled weight decay (arXiv 1711.05101).

    Attributes:
        betas: decay rates of the first and second moments.
    """

    betas: tuple[Beta, Beta] = (0.8, 0.99)

    def build(self, *, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build `torch.optim.AdamW`; see `OptimizerConfig`."""
        return _adamw(groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)


@register("optimizer/radam")
@dataclass(frozen=True)
class RAdamConfig(OptimizerConfig):
    """Rectified Adam (arXiv 1908.03265), whose weight decay is an L2 penalty.

    Attributes:
        betas: decay rates of the first and second moments.
    """

    betas: tuple[Beta, Beta] = (0.8, 0.99)

    def build(self, *, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build `torch.optim.RAdam`; see `OptimizerConfig`."""
        # On a CPU, torch would update one parameter after the other.
        return torch.optim.RAdam(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, foreach=_on_cpu(groups) or None
        )


@register("optimizer/muon")
@dataclass(frozen=True)
class MuonConfig(OptimizerConfig):
    """Muon for weight matrices, AdamW for all other parameters.

    Muon replaces the momentum of a matrix by the nearest orthogonal one. Its steps are scaled to the RMS of those of
    AdamW (arXiv 2502.16982), so one learning rate and one weight decay serve both. Weight matrices are the
    two-dimensional parameters; convolutions, gains and biases are left to AdamW.

    Attributes:
        momentum: decay rate of the momentum of matrices.
        betas: decay rates of the moments of AdamW.
    """

    momentum: Proportion = 0.95
    betas: tuple[Beta, Beta] = (0.8, 0.99)

    def build(self, *, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build both optimizers as one; see `OptimizerConfig`.

        Raises:
            PartitaError: the installed torch has no Muon.
        """
        muon = getattr(torch.optim, "Muon", None)
        if muon is None:
            raise PartitaError(f"torch {torch.__version__} has no Muon; install torch 2.9 or newer, or choose adamw")
        matrices = _part(groups, matrices=True)
        others = _part(groups, matrices=False)
        optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            optimizers.append(
                muon(
                    matrices,
                    lr=self.lr,
                    weight_decay=self.weight_decay,
                    momentum=self.momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if others:
            optimizers.append(_adamw(others, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay))
        return JointOptimizer(optimizers)


def _adamw(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.AdamW:
    """AdamW, on a CPU with one kernel per parameter instead of one per operation; on a GPU torch chooses."""
    return torch.optim.AdamW(groups, fused=_on_cpu(groups) or None, **settings)


def _on_cpu(groups: list[dict[str, Any]]) -> bool:
    return all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])


def _part(groups: list[dict[str, Any]], *, matrices: bool) -> list[dict[str, Any]]:
    """Parameter groups with their weight matrices alone, or with all else; empty groups are left out."""
    found = [group | {"params": [p for p in group["params"] if _is_matrix(p) == matrices]} for group in groups]
    return [group for group in found if group["params"]]


def _is_matrix(parameter: Tensor) -> bool:
    """True of a matrix that is not a single row or column, as the gains of weight normalization are."""
    return parameter.dim() == 2 and min(parameter.shape) > 1


class JointOptimizer(torch.optim.Optimizer):
    """Several optimizers of disjoint parameters as one, with the groups and the state of all of them."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Take over the groups of `optimizers`, which have not taken a step yet."""
        self.optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step with each optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, for all optimizers."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let the optimizers work on the groups and the state of this one."""
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]
            optimizer.state = self.state


def describe_continued_rates(optimizers: Mapping[str, OptimizerConfig], state: TrainState, planned: int) -> str:
    """One line on the learning rates of a run that is given more steps than planned; empty if none changes.

    Schedules continue from where they were, so the rates are not those of a run of that length from its start.

    Args:
        optimizers: configs of the optimizers by phase.
        state: state of the extended run, at its first step.
        planned: number of steps before the extension.
    """
    from_start = TrainState(state.step, state.total_steps)
    rates = {phase: (config.lr_at(state), config.lr_at(from_start)) for phase, config in optimizers.items()}
    changed = [f"{phase} {rate:.3g} (not {other:.3g})" for phase, (rate, other) in rates.items() if rate != other]
    if not changed:
        return ""
    return (
        f"{state.total_steps} steps instead of the planned {planned}: schedules continue from step {state.step}, so "
        f"learning rates differ from those of a new run of {state.total_steps} steps: {', '.join(changed)}"
    )
