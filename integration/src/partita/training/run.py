"""Configuration of a run, and the folder that it writes."""

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from partita_core import (
    Config,
    PartitaError,
    check_vacant,
    component_field,
    file_lock,
    from_dict,
    read_json,
    remove_unfinished,
    to_dict,
    write_json,
)
from partita_core.outputs import finish_interrupted_write
from partita_core.ranges import Count, Positive, Proportion, Ranged, Seed
from partita_core.saving import remove_model

from partita.data import DataConfig
from partita.objectives.objective import ObjectiveConfig

from .alarms import AlarmConfig
from .optimizers import AdamWConfig, OptimizerConfig

# Fields of `TrainerConfig` that may change when a run is resumed, because they do not affect what is learned.
_CHANGEABLE_ON_RESUME = ("on_nonfinite", "max_skipped", "alarms", "trackers")


def _default_optimizers() -> dict[str, OptimizerConfig]:
    return {"generator": AdamWConfig(), "discriminator": AdamWConfig(lr=3e-4)}


@dataclass(frozen=True)
class TrainerConfig(Ranged):
    """Optimization, precision, evaluation and logging of a run.

    Attributes:
        steps: number of optimizer steps.
        seed: seed of the initial weights, the data order and all random draws.
        optimizers: optimizers by phase; entries for phases that the objective does not have are ignored.
        precision: precision of the forward passes; weights are kept in float32. "no" is float32; "auto" is bf16 on GPUs
            that have it and on CPUs with AMX, else float32, and is replaced by that when a run starts.
        accumulation: micro-batches per step; a batch of the data is one micro-batch.
        ema_decay: decay of the averaged weights that are evaluated and saved; None for no averaging.
        log_every: steps between lines of the log.
        evaluate_every: steps between evaluations; None for start, middle and end of the run.
        evaluate_seconds: duration of validation audio per evaluation, in pieces from anywhere in its files.
        statistics_seconds: duration of training audio that the statistics of the latents are measured on, in pieces
            from anywhere in its files; at most all of it.
        on_nonfinite: action on a step whose loss or gradient is not finite: stop the run, or skip the step. In both
            cases the batch is saved to `failed/`.
        max_skipped: maximum number of consecutive skipped steps; the run stops at the next one.
        alarms: thresholds of metrics that raise a warning.
        trackers: trackers that receive metrics, audio and spectrograms in addition to the folder of the run.

    The last four may change when a run is resumed.
    """

    steps: Count = 1000
    seed: Seed = 0
    optimizers: dict[str, OptimizerConfig] = field(
        default_factory=_default_optimizers, metadata={"roles": ("optimizer",)}
    )
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    accumulation: Count = 1
    ema_decay: Proportion | None = 0.9999
    log_every: Count = 10
    evaluate_every: Count | None = None
    evaluate_seconds: Positive = 20.0
    statistics_seconds: Positive = 120.0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: Count = 10
    alarms: AlarmConfig = AlarmConfig()
    trackers: tuple[Literal["tensorboard"], ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on, except for the data itself.

    Attributes:
        model: model that is trained: an autoencoder, or a part on the latents of a trained codec.
        objective: training objective.
        data: cropping, augmentation and batching of the training data.
        trainer: optimization, evaluation and logging.
        codec: name of the trained codec that the model is built on, as for `load_model`; None for an autoencoder.
    """

    model: Config = component_field("autoencoder", "quantizer", "representation_model", "generator")
    objective: ObjectiveConfig = component_field("objective")
    data: DataConfig = DataConfig()
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    codec: str | None = None


class RunFolder:
    """Folder of a run: `config.json`, `log.jsonl`, `model/`, `checkpoints/`, `samples/`, and possibly `failed/`.

    The file `.partita` is the lock of the writing process, and lists the checkpoints that the run wrote, so that no
    others are deleted.
    """

    def __init__(self, path: str | Path) -> None:
        """Define the paths; nothing is created."""
        self.path = Path(path)
        self.config, self.log = self.path / "config.json", self.path / "log.jsonl"
        self.model, self.checkpoints = self.path / "model", self.path / "checkpoints"
        self.samples, self.failed = self.path / "samples", self.path / "failed"
        self.mark = self.path / ".partita"

    @classmethod
    def of_model(cls, model: str | Path) -> Self | None:
        """Run that a model folder or checkpoint belongs to; None if there is none, or it has no log."""
        path = Path(model).resolve()
        inside = path.parent if path.name == "model" else path.parent.parent
        run = cls(inside)
        return (
            run if path in (run.model.resolve(), run.checkpoints.resolve() / path.name) and run.log.is_file() else None
        )

    def check_new(self) -> None:
        """Check that a new run can start in the folder.

        Raises:
            PartitaError: the folder holds a run or other files, or is a file.
        """
        if self.config.exists():
            remedy = "add --resume (in Python resume=True) to continue it, or choose another folder"
            raise PartitaError(f"{self.path} already holds a run; {remedy}")
        check_vacant(self.path, but=[self.mark.name])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context that holds the lock of the run; creates the folder if it is missing.

        Raises:
            PartitaError: another process writes the run, or the folder cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PartitaError(f"cannot write {self.path}: {error.strerror or error}") from None
        with file_lock(self.mark):
            yield

    def tidy(self) -> None:
        """Remove files that a kill left half-written, and complete a model folder whose replacement was interrupted."""
        for folder in (self.path, self.model, self.checkpoints, self.failed):
            remove_unfinished(folder)
        finish_interrupted_write(self.model)

    def written(self) -> set[str]:
        """Names of the checkpoints that the run wrote and has not deleted."""
        found: set[str] = set()
        for line in self.mark.read_text(encoding="utf-8").splitlines() if self.mark.exists() else ():
            event, _, name = line.partition(" ")
            (found.add if event == "write" else found.discard)(name)
        return found

    def record(self, event: Literal["write", "delete"], checkpoint: str) -> None:
        """Record that a checkpoint is about to be written, or has been deleted."""
        with self.mark.open("a", encoding="utf-8") as file:
            file.write(f"{event} {checkpoint}\n")
            file.flush()
            os.fsync(file.fileno())

    def check_own(self) -> None:
        """Check that the folder holds nothing but files of a run.

        Raises:
            PartitaError: it holds something else; the first name is given.
        """
        written = (self.config, self.log, self.model, self.checkpoints, self.samples, self.failed, self.mark)
        check_vacant(self.path, but=[*(path.name for path in written), "tensorboard"])

    def discard(self) -> None:
        """Remove the files of the run, and the folder unless it holds other files."""
        for folder in (*(self.checkpoints / name for name in self.written()), self.samples, self.failed):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        remove_model(self.model)
        for file in (self.config, self.log, self.mark):
            file.unlink(missing_ok=True)
        for folder in (self.checkpoints, self.path):
            with suppress(OSError):
                folder.rmdir()

    def check_resumed(self, config: RunConfig) -> None:
        """Check that a run is resumed with its own config; the number of steps may grow, and alarms may change.

        Raises:
            PartitaError: another field differs; the first is named.
        """
        started = self.read_config()
        changeable = {name: getattr(config.trainer, name) for name in _CHANGEABLE_ON_RESUME}
        changeable["steps"] = max(started.trainer.steps, config.trainer.steps)  # fewer would change past rates
        same = dataclasses.replace(started, trainer=dataclasses.replace(started.trainer, **changeable))
        difference = first_difference(to_dict(same), to_dict(config))
        if difference:
            raise PartitaError(f"{self.path} was started with another config: {difference}")

    def read_config(self) -> RunConfig:
        """Config that the run was started with; see `read_run_config`."""
        return read_run_config(self.config)[0]

    def write_config(self, config: RunConfig, recipe: str) -> None:
        """Write the resolved config and the name of its recipe.

        Raises:
            PartitaError: the folder cannot be created.
        """
        write_json(self.config, {"recipe": recipe, "config": to_dict(config)})


def read_run_config(path: str | Path) -> tuple[RunConfig, str]:
    """Read a `config.json` as written to the folder of a run: the config and the name of its recipe.

    Raises:
        PartitaError: the file cannot be read, or is not the config of a run.
    """
    saved = read_json(Path(path))
    found = saved if isinstance(saved, dict) else {}
    return from_dict(RunConfig, found.get("config"), where=str(path)), str(found.get("recipe", ""))


def first_difference(was: Any, now: Any, where: str = "") -> str:
    """Path and values of the first difference between two trees of plain values; empty if they are equal."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in [*was, *(key for key in now if key not in was)]:
            found = first_difference(was.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return ""
    return "" if was == now else f"{where} was {was!r}, now {now!r}"
