"""Losses and gradients that are not finite: seen before an optimizer takes them, and kept to be looked at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from partita_core import PartitaError, atomic_write, hashed_seed, upcast, write_json, write_tensors
from torch import Tensor, distributed

from partita.objectives.objective import Objective, TrainState

from .run import RunFolder, TrainerConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

# Failures of a process that are kept; a run that skips might fill the disk.
_KEPT = 3

# Files and gradients that a line names.
_NAMED = 3


class NonFiniteError(PartitaError):
    """A loss or a gradient is not finite: the step is not taken. The batch is kept in the folder of the run."""


@dataclass(frozen=True)
class _Forward:
    """One phase of one micro-batch: what went in, and the total and the terms that came out."""

    micro: int
    phase: str
    batch: dict[str, Any]
    losses: dict[str, Tensor]


class Guard:
    """Looks at every step before it is taken: once a phase, at its losses and at the norm of its gradient.

    Losses of micro-batches are gathered where they are, and looked at together with the norm, so that a phase waits
    for the device once. All processes see the same, because the worst of them counts. Nothing is drawn and nothing
    changed, so a run is the same with a guard as without.

    Attributes:
        row: steps in a row that were not taken.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        objective: Objective,
        trainer: TrainerConfig,
        run: RunFolder,
    ) -> None:
        """Guards a run."""
        self._accelerator, self._objective, self._trainer, self._run = accelerator, objective, trainer, run
        self._kept = 0
        self.row, self._overflowed = 0, False
        self._forwards: list[_Forward] = []
        self._buffers: dict[str, Tensor] = {}

    def begin(self) -> None:
        """A step begins: forward passes will move averages and codebooks, which must not keep what is not finite."""
        self._forwards, self._overflowed = [], False
        self._buffers = {name: buffer.clone() for name, buffer in self._objective.named_buffers()}

    def note(
        self, micro: int, phase: str, batch: Mapping[str, Any], total: Tensor, losses: Mapping[str, Tensor]
    ) -> None:
        """One phase of a micro-batch has been computed."""
        self._forwards.append(_Forward(micro, phase, dict(batch), {"total": total.detach(), **losses}))

    def look(self, state: TrainState, phase: str, norm: Tensor | None) -> None:
        """Before the optimizer of a phase takes the step: looks at all micro-batches, and at the gradient's `norm`.

        Raises:
            NonFiniteError: something is not finite. What is to be seen of it has been kept, buffers are as they
                were before the step, and gradients are gone.
        """
        forwards = [forward for forward in self._forwards if forward.phase == phase]
        device = self._accelerator.device
        losses = [upcast(loss).reshape(()).to(device) for forward in forwards for loss in forward.losses.values()]
        losses = torch.stack([loss.isfinite() for loss in losses]).all()
        gradient = losses if norm is None else norm.isfinite().to(device)
        finite = torch.stack([losses, gradient]).int()
        if self._accelerator.num_processes > 1:
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
        losses_finite, gradient_finite = finite.tolist()
        if losses_finite and gradient_finite:
            return
        if losses_finite and self._accelerator.scaler is not None and self.row < self._trainer.max_skipped:
            self.row, self._overflowed = self.row + 1, True  # float16: the scaler leaves the step out, and scales less
            return
        self.row += 1
        self._restore()
        found = self._replay(state, forwards)
        self._restore()
        raise NonFiniteError(self._say(state, phase, found, self._keep(state, phase, forwards, found)))

    def end(self) -> None:
        """A step has been taken."""
        if not self._overflowed:
            self.row = 0

    def goes_on(self) -> bool:
        """Whether the run goes on without the step."""
        return self._trainer.on_nonfinite == "skip" and self.row <= self._trainer.max_skipped

    @torch.no_grad()
    def _restore(self) -> None:
        for name, buffer in self._objective.named_buffers():
            buffer.copy_(self._buffers[name])
        self._objective.zero_grad(set_to_none=True)

    def _replay(self, state: TrainState, forwards: list[_Forward]) -> list[list[dict[str, Any]]]:
        """For each process and each of its micro-batches, what was in it and what is wrong.

        The phase is computed once more, each process for itself: the gradients that it was stopped at are those of
        all micro-batches and processes together, and clipping has spread what was wrong in one over all.
        """
        from accelerate.utils import gather_object

        mine = []
        for forward in forwards:
            key = (self._accelerator.process_index, state.step, forward.micro, forward.phase)
            torch.manual_seed(hashed_seed(self._trainer.seed, *key))
            batch: Any = dict(forward.batch)
            total = self._objective(batch, state, forward.phase).total
            trained = {name: p for name, p in self._objective.named_parameters() if p.requires_grad}
            # Not `backward`, which DistributedDataParallel would count as one of its own.
            found = torch.autograd.grad(total, list(trained.values()), allow_unused=True) if total.requires_grad else ()
            wrong = [name for name, x in zip(trained, found) if x is not None and not x.isfinite().all()]
            rows = forward.batch["index"].tolist()
            said = {key: forward.batch[key] for key in ("prompt", "answer") if key in forward.batch}
            losses = {name: float(loss) for name, loss in forward.losses.items()}
            mine.append(
                {
                    "batch": f"batch_{self._accelerator.process_index}_{forward.micro}.safetensors",
                    "files": forward.batch["file_name"],
                    "rows": rows,
                    "losses": {name: x if math.isfinite(x) else str(x) for name, x in losses.items()},
                    "gradients": wrong,
                    **said,
                }
            )
        return gather_object([mine])

    def _keep(self, state: TrainState, phase: str, forwards: list[_Forward], found: list[list[dict[str, Any]]]) -> str:
        """Writes what is to be looked at, and says where."""
        folder = self._run.failed / f"step_{state.step + 1:08d}"
        if self._kept == _KEPT:
            return f"{_KEPT} before it are in {self._run.failed}"
        self._kept += 1
        mine, problem = found[self._accelerator.process_index], ""
        try:
            if self._accelerator.is_main_process:
                with atomic_write(folder, own=(folder / "failure.json").is_file()) as aside:
                    aside.mkdir()
                    write_tensors(aside / "objective.safetensors", self._objective.state_dict(), finite=False)
                    failure = {"step": state.step + 1, "total_steps": state.total_steps, "phase": phase}
                    write_json(aside / "failure.json", failure | {"seed": self._trainer.seed, "processes": found})
        except PartitaError as error:
            problem = str(error)
        self._accelerator.wait_for_everyone()
        try:
            for forward, report in zip(forwards, mine):
                tensors = {name: value for name, value in forward.batch.items() if isinstance(value, Tensor)}
                write_tensors(folder / report["batch"], tensors, finite=False)
        except PartitaError as error:
            problem = str(error)
        return f"it could not be kept ({problem})" if problem else f"batch and weights are in {folder}"

    def _say(self, state: TrainState, phase: str, found: list[list[dict[str, Any]]], kept: str) -> str:
        batches = [report for mine in found for report in mine]
        wrong = [report for report in batches if _wrong_terms(report)]
        terms = list(dict.fromkeys(name for report in wrong for name in _wrong_terms(report)))
        what = f"the loss {', '.join(terms)}"
        if not wrong:
            wrong = [report for report in batches if report["gradients"]] or batches
            gradients = list(dict.fromkeys(name for report in wrong for name in report["gradients"]))
            what = (
                f"the gradient of {_some(gradients)}" if gradients else "the gradient, though not when computed again"
            )
        files = list(dict.fromkeys(file for report in wrong for file in report["files"]))
        advice = "lower the learning rate, or go on without such steps by trainer.on_nonfinite=skip"
        if self._trainer.on_nonfinite == "skip":
            limit = "" if self.goes_on() else f", and trainer.max_skipped is {self._trainer.max_skipped}"
            advice = f"left out, number {self.row} in a row{limit}"
        return f"step {state.step + 1}, {phase}: {what} is not finite, in a batch of {_some(files)}; {kept}; {advice}"


def _wrong_terms(report: Mapping[str, Any]) -> list[str]:
    """The terms that are not finite; the total only where no term is."""
    wrong = [name for name, value in report["losses"].items() if isinstance(value, str)]
    return [name for name in wrong if name != "total"] or wrong


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
