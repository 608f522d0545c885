"""The trainer: runs a config on data, from new weights to a saved model."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from partita_core import Codec, Frozen, PartitaError, measure_latents
from torch import nn

from partita.data import CropLoader, StreamLoader, build_loader, corpus_spec, first_rows, reported_readers
from partita.data.text_coverage import check_coverage
from partita.distributed import broadcast_from_main, check_world
from partita.objectives.latent_batches import check_corpus
from partita.objectives.objective import Objective, TrainState

from .auto_precision import resolve_precision
from .build_objective import build_objective, config_of_model
from .callbacks import Callback
from .checkpoints import checkpoints, last_checkpoint
from .ema import averaged
from .loop import Loop, LoopOptions
from .model_card import TrainingSummary, model_card
from .nonfinite_guard import NonFiniteError
from .run import RunConfig, RunFolder
from .run_data import DataFingerprint, RunData
from .samples import Samples, check_trackers
from .statistics import audio_hours, statistics_latents
from .validation import Validator

if TYPE_CHECKING:
    from .run_data import Data


@reported_readers()
def train(
    config: RunConfig,
    *,
    data: "Data",
    output: str | Path,
    model: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    recipe: str = "",
    minutes: float | None = None,
    cpu_minutes: float | None = None,
    checkpoint_every: int | None = None,
    checkpoint_minutes: float | None = 10.0,
    keep: int = 2,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Train a model, and return its folder, `output/model`.

    Args:
        config: config of the run.
        data: folder, file or hub name as `open_dataset` takes it, or a `Dataset`, `DatasetDict`, `IterableDataset` or
            `IterableDatasetDict`. The split "train" is trained on, "validation" is evaluated.
        output: folder of the run, new or empty.
        model: model to train in place, assembled from registered components; its Config replaces `config.model`. None
            to build that of the config.
        callbacks: objects that are called during the run; see `Callback`.
        recipe: name of the recipe, for `config.json` and the model card.
        minutes: time limit of the whole run, including time before a resumption, without evaluations; schedules are
            scaled to end with it.
        cpu_minutes: limit of the processor time instead: user and system time of all threads of this process, or of the
            main one of several, without evaluations and without the processes that read data.
        checkpoint_every: steps between checkpoints; None for no limit. One is also written at the end, and when
            SIGINT, SIGTERM or SIGUSR1 is received.
        checkpoint_minutes: maximum time between checkpoints; None for no limit.
        keep: number of checkpoints to keep.
        resume: continue from the last checkpoint in `output`, or from the start if there is none. With more steps than
            before, schedules continue from where they were.
        init_from: name of the model to load initial weights from, as for `load_model`.
        progress: show a progress bar.

    Raises:
        PartitaError: data, folder and config do not go together; processes were started but not found; an alarm stops
            the run; another process writes the run.
        Interrupted: SIGINT or SIGTERM was received; a checkpoint is written.
        NonFiniteError: a loss or a gradient is not finite; see `TrainerConfig.on_nonfinite`.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    run = RunFolder(output)
    if model is not None:
        config = dataclasses.replace(config, model=config_of_model(model))
    automatic = config.trainer.precision == "auto"
    config = resolve_precision(config, run, resume=resume)
    _check_folder(run, config, resume)
    run_data = RunData(data, streaming=config.data.streaming, where=config.data.where)
    objective = build_objective(config, model=model, init_from=init_from)
    check_trackers(config.trainer.trackers)
    _check_data(objective, run_data, config)

    ddp = DistributedDataParallelKwargs(find_unused_parameters=len(objective.phases) > 1, broadcast_buffers=False)
    accelerator = Accelerator(
        mixed_precision=config.trainer.precision,
        gradient_accumulation_steps=config.trainer.accumulation,
        kwargs_handlers=[ddp],
        log_with=list(config.trainer.trackers) or None,
        project_dir=run.path,
    )
    check_world(accelerator.num_processes)
    state, elapsed, loop = TrainState(0, config.trainer.steps), 0.0, None
    options = LoopOptions(minutes, cpu_minutes, checkpoint_every, checkpoint_minutes, keep, progress, tuple(callbacks))
    try:
        with _locked(accelerator, run, config, state, resume=resume):
            loop = Loop(accelerator, objective, config, run, options, DataFingerprint.of(run_data.train))
            checkpoint = last_checkpoint(run) if resume else None
            if checkpoint is not None:
                state, elapsed = loop.restore(checkpoint)

            def read(rank: int, world_size: int, positions: Any) -> CropLoader | StreamLoader:
                return build_loader(
                    run_data.train,
                    config.data,
                    audio_spec=objective.codec.audio_spec,
                    crop_multiple=objective.crop_multiple,
                    seed=config.trainer.seed,
                    rank=rank,
                    world_size=world_size,
                    start_step=state.step * config.trainer.accumulation,
                    positions=positions,
                )

            batches = read(accelerator.process_index, accelerator.num_processes, loop.stream_position())
            accelerator.wait_for_everyone()  # all have checked the folder before one writes to it
            if accelerator.is_main_process:
                run.write_config(config, recipe)
            # Hides what a run wrote to its trackers after the checkpoint that it is resumed from.
            settings = {name: {"purge_step": state.step + 1} for name in config.trainer.trackers if resume}
            accelerator.init_trackers("tensorboard", init_kwargs=settings)
            if checkpoint is None:
                loop.precision = config.trainer.precision if automatic else ""
                loop.initialize(read(0, 1, None), run_data.train)
            validator = None
            if accelerator.is_main_process:
                samples = Samples(run.samples, accelerator.trackers)
                validator = Validator(
                    run_data, objective, loop.ema, config, accelerator.device, samples, classes=batches.classes
                )
            elapsed = loop.train(batches, state, elapsed, validator)
            if validator is not None:
                _save_model(loop, run_data, validator, state, recipe=recipe, seconds=elapsed)
            accelerator.wait_for_everyone()
    except OSError as error:  # a full disk, or a folder that cannot be written
        if loop is not None and error is loop.callback_error:
            raise
        raise PartitaError(f"{error.filename or run.path}: {error.strerror or error}") from error
    finally:
        if loop is not None:
            loop.stepper.close()
        accelerator.end_training()
    for callback in callbacks if accelerator.is_main_process else ():
        callback.on_end(run.model)
    return run.model


def _check_folder(run: RunFolder, config: RunConfig, resume: bool) -> None:
    if resume and (run.config.exists() or checkpoints(run.checkpoints)):
        run.check_resumed(config)
    else:
        run.check_new()


def _check_data(objective: Objective, data: RunData, config: RunConfig) -> None:
    """Check that the objective can be trained on the data."""
    corpus = corpus_spec(data.train)
    if corpus is not None:
        check_corpus(objective, corpus)
    audio_spec = objective.codec.audio_spec
    samples = config.data.crop_samples(audio_spec.sample_rate, objective.crop_multiple)
    check_coverage(data.train, config.data.texts, audio_spec=audio_spec, samples=samples, data=data.source)


@contextmanager
def _locked(accelerator: Any, run: RunFolder, config: RunConfig, state: TrainState, *, resume: bool) -> Iterator[None]:
    """Hold the lock of a run for all processes; remove a new run that fails before its first step.

    Raises:
        PartitaError: another process writes the run, or has done so since the folder was checked; in all processes.
    """
    with ExitStack() as stack:
        problem, new = "", not run.config.exists()
        if accelerator.is_main_process:
            try:
                stack.enter_context(run.locked())
                _check_folder(run, config, resume)
                run.tidy()
            except PartitaError as error:
                problem = str(error)
        problem = broadcast_from_main(accelerator, problem)
        if problem:
            raise PartitaError(problem)
        try:
            yield
        except BaseException as error:
            inspectable = isinstance(error, NonFiniteError)  # which has saved the failed batch
            if new and not inspectable and not state.step and accelerator.is_main_process:
                for tracker in accelerator.trackers:
                    tracker.finish()
                run.discard()
            raise


def _save_model(
    loop: Loop, data: RunData, validator: Validator, state: TrainState, *, recipe: str, seconds: float
) -> None:
    """Measure the statistics of the latents if they are not known, and save the averaged weights with a card."""
    objective, config, device = loop.objective, loop.config, loop.accelerator.device
    for module in objective.modules():
        if isinstance(module, Frozen):
            module.check()
    rows = first_rows(data.train)
    complete = rows is data.train  # of a stream, neither the number of files nor the hours are known
    summary = TrainingSummary(
        recipe=recipe,
        objective=config.objective.tag,
        data=data.name,
        files=len(rows) if complete else None,
        hours=audio_hours(rows) if complete else None,
        steps=state.step,
        seconds=seconds,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper(),
        split=validator.split,
        measured=validator.measured or validator.validate(state),  # a run that was over already has not validated again
    )
    with averaged(objective, loop.ema) as model:
        if isinstance(model, Codec) and model.latent_spec.mean is None:
            model.latent_spec = measure_latents(model, statistics_latents(model, rows, config, objective.crop_multiple))
        model.save_pretrained(loop.run.model, card=model_card(model, summary))
