"""A run: one record that says all of it, and the folder that it leaves."""

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

from .alarms import WatchConfig
from .optimization import OptimizerConfig

# What may be another in a run that is resumed: nothing of it touches what is learned.
_FREE = ("on_nonfinite", "max_skipped", "watch", "trackers")


def _default_optimizers() -> dict[str, OptimizerConfig]:
    return {"generator": OptimizerConfig(), "discriminator": OptimizerConfig(lr=3e-4)}


@dataclass(frozen=True)
class TrainerConfig(Ranged):
    """How a run is driven; nothing here is about what is learned.

    Attributes:
        steps: optimizer steps.
        seed: of the first weights, the data and every draw.
        optimizers: by phase; those of phases that the objective does not have are left aside.
        precision: of the forward passes; weights stay in float32.
        accumulation: micro-batches a step; a batch of the data is one micro-batch.
        ema_decay: of the averaged weights that are evaluated and saved; None for none.
        log_every: steps between lines of the log.
        evaluate_every: steps between evaluations; None for the start, the middle and the end.
        evaluate_seconds: audio of the validation split that an evaluation takes, in pieces from anywhere in its files.
        statistics_seconds: audio of the training split that the latents' statistics are measured on, in pieces from
            anywhere in its files; as much as they hold, where that is less.
        on_nonfinite: what becomes of a step with a loss or a gradient that is not finite: the run stops, or it goes on
            without the step. Either way the batch is kept in `failed/`.
        max_skipped: steps in a row that may be left out before the run stops anyhow.
        watch: which figures are worth a warning.
        trackers: where figures, audio and spectrograms go beside the folder of the run.

    The last four may be others when a run is resumed.
    """

    steps: Count = 1000
    seed: Seed = 0
    optimizers: dict[str, OptimizerConfig] = field(default_factory=_default_optimizers)
    precision: Literal["no", "bf16", "fp16"] = "no"
    accumulation: Count = 1
    ema_decay: Proportion | None = 0.9999
    log_every: Count = 10
    evaluate_every: Count | None = None
    evaluate_seconds: Positive = 20.0
    statistics_seconds: Positive = 120.0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: Count = 10
    watch: WatchConfig = WatchConfig()
    trackers: tuple[Literal["tensorboard"], ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on but the data itself.

    Attributes:
        model: what is trained: an autoencoder, or a part on the latents of a codec that is trained already.
        objective: what it is trained for.
        data: how training data is cut and varied.
        trainer: how it is driven.
        codec: the codec whose latents the model is for, a folder or a name on the hub; None for an autoencoder.
    """

    model: Config = component_field("autoencoder", "quantizer", "representation_model", "generator")
    objective: Config = component_field("objective")
    data: DataConfig = DataConfig()
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    codec: str | None = None


class RunFolder:
    """The folder of a run: `config.json`, `log.jsonl`, `model/`, `checkpoints/`, `samples/`, and perhaps `failed/`.

    Beside them, `.partita` is the lock of the process that writes, and lists the checkpoints that the run wrote: no
    others are deleted.
    """

    def __init__(self, path: str | Path) -> None:
        """Names the places; nothing is made yet."""
        self.path = Path(path)
        self.config, self.log = self.path / "config.json", self.path / "log.jsonl"
        self.model, self.checkpoints = self.path / "model", self.path / "checkpoints"
        self.samples, self.failed = self.path / "samples", self.path / "failed"
        self.mark = self.path / ".partita"

    @classmethod
    def of_model(cls, model: str | Path) -> Self | None:
        """The run that a model or checkpoint lies in; None where there is none, or no log of it."""
        path = Path(model).resolve()
        inside = path.parent if path.name == "model" else path.parent.parent
        run = cls(inside)
        return (
            run if path in (run.model.resolve(), run.checkpoints.resolve() / path.name) and run.log.is_file() else None
        )

    def check_new(self) -> None:
        """Refuse a folder that a run cannot start in.

        Raises:
            PartitaError: there is a run already, or anything else, or it is a file.
        """
        if self.config.exists():
            raise PartitaError(f"{self.path} holds a run already; --resume it, or choose another folder")
        check_vacant(self.path, but=[self.mark.name])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the run, whose folder is made where there is none.

        Raises:
            PartitaError: another process writes the run, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PartitaError(f"cannot write {self.path}: {error.strerror or error}") from None
        with file_lock(self.mark):
            yield

    def tidy(self) -> None:
        """Remove what a kill in the middle of writing has left, and complete what can be."""
        for folder in (self.path, self.model, self.checkpoints, self.failed):
            remove_unfinished(folder)
        finish_interrupted_write(self.model)

    def written(self) -> set[str]:
        """The names of the checkpoints that the run wrote and did not delete."""
        found: set[str] = set()
        for line in self.mark.read_text(encoding="utf-8").splitlines() if self.mark.exists() else ():
            event, _, name = line.partition(" ")
            (found.add if event == "write" else found.discard)(name)
        return found

    def note(self, event: Literal["write", "delete"], checkpoint: str) -> None:
        """Add a line on a checkpoint that is about to be written, or was deleted."""
        with self.mark.open("a", encoding="utf-8") as file:
            file.write(f"{event} {checkpoint}\n")
            file.flush()
            os.fsync(file.fileno())

    def check_own(self) -> None:
        """Refuse a folder that holds what no run writes.

        Raises:
            PartitaError: so it is; the first is named.
        """
        written = (self.config, self.log, self.model, self.checkpoints, self.samples, self.failed, self.mark)
        check_vacant(self.path, but=[*(path.name for path in written), "tensorboard"])

    def discard(self) -> None:
        """Remove what the run wrote; the folder stays if anything else is in it."""
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
        """Holds a run to the config it was started with; steps may become more, and what is watched change.

        Raises:
            PartitaError: it differs; the first difference is named.
        """
        started = self.read_config()
        free = {name: getattr(config.trainer, name) for name in _FREE}
        free["steps"] = max(started.trainer.steps, config.trainer.steps)  # fewer would change schedules behind it
        same = dataclasses.replace(started, trainer=dataclasses.replace(started.trainer, **free))
        difference = first_difference(to_dict(same), to_dict(config))
        if difference:
            raise PartitaError(f"{self.path} was started with another config: {difference}")

    def read_config(self) -> RunConfig:
        """The config that the run was started with.

        Raises:
            PartitaError: there is none, or it is no config of a run.
        """
        saved = read_json(self.config)
        return from_dict(RunConfig, saved.get("config") if isinstance(saved, dict) else None, where=str(self.config))

    def write_config(self, config: RunConfig, recipe: str) -> None:
        """Writes the resolved config.

        Raises:
            PartitaError: the folder cannot be made.
        """
        write_json(self.config, {"recipe": recipe, "config": to_dict(config)})


def first_difference(was: Any, now: Any, where: str = "") -> str:
    """Where two trees of plain values first differ, in words; empty where they do not."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in [*was, *(key for key in now if key not in was)]:
            found = first_difference(was.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return ""
    return "" if was == now else f"{where} was {was!r}, now {now!r}"
