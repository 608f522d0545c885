"""Guard against non-finite losses and gradients: checked before each optimizer step, and saved for inspection."""

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

# Maximum number of failures that are saved; a run that skips many steps would fill the disk.
_MAX_SAVED = 3

# Maximum number of files and gradients named in a message.
_MAX_NAMES = 3


class NonFiniteError(PartitaError):
    """A loss or a gradient is not finite, so the step was not taken; the batch is saved in the folder of the run."""


@dataclass(frozen=True)
class _Forward:
    """One phase of one micro-batch: its batch, and the total and the terms of the loss."""

    micro: int
    phase: str
    batch: dict[str, Any]
    losses: dict[str, Tensor]


class Guard:
    """Check of the losses and the gradient norm of every phase before its optimizer takes a step.

    The losses of all micro-batches are checked together with the norm, so that a phase waits for the device once. All
    processes come to the same result, that of the worst one. The guard draws nothing and changes nothing, so a run is
    the same with it as without.

    Attributes:
        consecutive_skips: number of consecutive steps that were not taken.
    """

    def __init__(
        self,
        accelerator: "Accelerator",
        objective: Objective,
        trainer: TrainerConfig,
        run: RunFolder,
    ) -> None:
        """Guard the steps of a run."""
        self._accelerator, self._objective, self._trainer, self._run = accelerator, objective, trainer, run
        self._saved = 0
        self.consecutive_skips, self._overflowed = 0, False
        self._forwards: list[_Forward] = []
        self._buffers: dict[str, Tensor] = {}

    def start_step(self) -> None:
        """Copy the buffers, such as running averages and codebooks, which forward passes are about to update."""
        self._forwards, self._overflowed = [], False
        self._buffers = {name: buffer.clone() for name, buffer in self._objective.named_buffers()}

    def record(
        self, micro: int, phase: str, batch: Mapping[str, Any], total: Tensor, losses: Mapping[str, Tensor]
    ) -> None:
        """Record one phase of a micro-batch."""
        self._forwards.append(_Forward(micro, phase, dict(batch), {"total": total.detach(), **losses}))

    def check(self, state: TrainState, phase: str, norm: Tensor | None) -> None:
        """Check the losses of all micro-batches and the gradient norm, before the optimizer of a phase takes the step.

        Raises:
            NonFiniteError: a value is not finite. The batches have been saved, buffers are restored to their values
                before the step, and gradients are cleared.
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
        if (
            losses_finite
            and self._accelerator.scaler is not None
            and self.consecutive_skips < self._trainer.max_skipped
        ):
            self.consecutive_skips += 1
            self._overflowed = True  # float16: GradScaler skips the step and lowers its scale
            return
        self.consecutive_skips += 1
        self._restore()
        found = self._replay(state, forwards)
        self._restore()
        raise NonFiniteError(self._message(state, phase, found, self._save(state, phase, forwards, found)))

    def finish_step(self) -> None:
        """Count a step that was taken."""
        if not self._overflowed:
            self.consecutive_skips = 0

    def should_continue(self) -> bool:
        """True if the run continues without the step."""
        return self._trainer.on_nonfinite == "skip" and self.consecutive_skips <= self._trainer.max_skipped

    @torch.no_grad()
    def _restore(self) -> None:
        for name, buffer in self._objective.named_buffers():
            buffer.copy_(self._buffers[name])
        self._objective.zero_grad(set_to_none=True)

    def _replay(self, state: TrainState, forwards: list[_Forward]) -> list[list[dict[str, Any]]]:
        """Report the files, losses and non-finite gradients of each micro-batch of each process.

        Each process computes the phase again for itself: the gradients at hand are sums over micro-batches and
        processes, and clipping by their norm has made all of them non-finite.
        """
        from accelerate.utils import gather_object

        mine = []
        for forward in forwards:
            key = (self._accelerator.process_index, state.step, forward.micro, forward.phase)
            torch.manual_seed(hashed_seed(self._trainer.seed, *key))
            batch: Any = dict(forward.batch)
            total = self._objective(batch, state, forward.phase).total
            trained = {name: p for name, p in self._objective.named_parameters() if p.requires_grad}
            # Not `backward`, which would trigger the reduction of DistributedDataParallel.
            found = torch.autograd.grad(total, list(trained.values()), allow_unused=True) if total.requires_grad else ()
            nonfinite = [name for name, x in zip(trained, found) if x is not None and not x.isfinite().all()]
            rows = forward.batch["index"].tolist()
            texts = {key: forward.batch[key] for key in ("prompt", "answer") if key in forward.batch}
            losses = {name: float(loss) for name, loss in forward.losses.items()}
            mine.append(
                {
                    "batch": f"batch_{self._accelerator.process_index}_{forward.micro}.safetensors",
                    "files": forward.batch["file_name"],
                    "rows": rows,
                    "losses": {name: x if math.isfinite(x) else str(x) for name, x in losses.items()},
                    "gradients": nonfinite,
                    **texts,
                }
            )
        return gather_object([mine])

    def _save(self, state: TrainState, phase: str, forwards: list[_Forward], found: list[list[dict[str, Any]]]) -> str:
        """Write the batches and the objective to `failed/`, and return one phrase on where they are."""
        folder = self._run.failed / f"step_{state.step + 1:08d}"
        if self._saved == _MAX_SAVED:
            return f"the first {_MAX_SAVED} failures are in {self._run.failed}"
        self._saved += 1
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
        return f"saving it failed ({problem})" if problem else f"batch and weights are in {folder}"

    def _message(self, state: TrainState, phase: str, found: list[list[dict[str, Any]]], saved: str) -> str:
        batches = [report for mine in found for report in mine]
        affected = [report for report in batches if _nonfinite_terms(report)]
        terms = list(dict.fromkeys(name for report in affected for name in _nonfinite_terms(report)))
        value = f"the loss {', '.join(terms)}"
        if not affected:
            affected = [report for report in batches if report["gradients"]] or batches
            gradients = list(dict.fromkeys(name for report in affected for name in report["gradients"]))
            value = f"the gradient of {_some(gradients)}" if gradients else "the gradient (but finite when repeated)"
        files = list(dict.fromkeys(file for report in affected for file in report["files"]))
        action = "lower the learning rate, or skip such steps with trainer.on_nonfinite=skip"
        if self._trainer.on_nonfinite == "skip":
            limit = "" if self.should_continue() else f", more than trainer.max_skipped={self._trainer.max_skipped}"
            action = f"skipped, {self.consecutive_skips} in a row{limit}"
        return f"step {state.step + 1}, {phase}: {value} is not finite, in a batch of {_some(files)}; {saved}; {action}"


def _nonfinite_terms(report: Mapping[str, Any]) -> list[str]:
    """Names of the losses that are not finite; the total only if all terms are finite."""
    nonfinite = [name for name, value in report["losses"].items() if isinstance(value, str)]
    return [name for name in nonfinite if name != "total"] or nonfinite


def _some(names: Sequence[str]) -> str:
    """The first few names, and the number of the others."""
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
