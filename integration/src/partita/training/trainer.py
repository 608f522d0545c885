"""The trainer: what a run is made of, from its config and a folder to the model's."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from partita_core import Frozen, PartitaError, Saved, hashed_seed, load_weights
from torch import nn

from partita.data import (
    CropLoader,
    StreamLoader,
    build_loader,
    corpus_spec,
    names_hash,
    open_dataset,
    reported_readers,
    sample_digests,
)
from partita.data.text_coverage import check_coverage
from partita.distributed import broadcast_from_main, check_world
from partita.model_loading import build_model, load_model
from partita.objectives.latent_batches import check_corpus
from partita.objectives.objective import Objective, TrainState

from .checkpoints import checkpoints, last_checkpoint
from .finish import finish
from .loop import Loop
from .nonfinite_guard import NonFiniteError
from .run import RunConfig, RunFolder
from .samples import Samples, check_trackers
from .validation import Periodic


@reported_readers()
def train(
    config: RunConfig,
    *,
    data: str | Path,
    output: str | Path,
    recipe: str = "",
    minutes: float | None = None,
    checkpoint_every: int | None = None,
    checkpoint_minutes: float | None = 10.0,
    keep: int = 2,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Trains a model and returns its folder, `output/model`.

    Args:
        config: the run.
        data: a folder with audio, or what else `open_dataset` takes; its split "train" is trained on, "validation"
            is listened to. Of a corpus of latents there is nothing to listen to.
        output: the folder of the run, new or empty.
        recipe: the name written beside the config.
        minutes: stop after that long, this time included in schedules as if the run had been planned so.
        checkpoint_every: steps between checkpoints; None for no such number. One is written at the end, too, and when
            SIGINT, SIGTERM or SIGUSR1 comes.
        checkpoint_minutes: time after which a checkpoint is written if there was none; None for no such time.
        keep: checkpoints to leave.
        resume: go on from the last checkpoint in `output`; from the start, if the run was killed before the first, or
            before it left a folder. With more steps than before, schedules go on from where they were.
        init_from: a model folder whose weights to start from.
        progress: show a bar.

    Raises:
        PartitaError: the data, the folder or the config do not allow it; processes do not know of each other; or
            `TrainerConfig.watch` says to stop; or another process writes the run.
        Interrupted: SIGINT or SIGTERM has come; a checkpoint is written.
        NonFiniteError: a loss or a gradient is not finite, and the run is to stop of it; see `TrainerConfig`.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    run = RunFolder(output)
    _check_folder(run, config, resume)
    dataset = open_dataset(data, split="train", where=config.data.where, streaming=config.data.streaming)
    objective = _build(config, init_from)
    check_trackers(config.trainer.trackers)
    corpus = corpus_spec(dataset)
    if corpus is not None:
        check_corpus(objective, corpus)
    audio_spec = objective.codec.audio_spec
    samples = config.data.crop_samples(audio_spec.sample_rate, objective.crop_multiple)
    check_coverage(dataset, config.data.texts, audio_spec=audio_spec, samples=samples, data=str(data))
    if isinstance(objective.result, Saved):
        objective.result.saved_config()  # what could not be saved is refused before it is trained

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
    try:
        with _one_writer(accelerator, run, config, state, resume=resume):
            loop = Loop(accelerator, objective, config, run, data=_called(dataset), contents=_contents(dataset))
            found = last_checkpoint(run) if resume else None
            if found is not None:
                state, elapsed = loop.restore(found, minutes)

            def read(rank: int, world_size: int, positions: Any) -> CropLoader | StreamLoader:
                return build_loader(
                    dataset,
                    config.data,
                    audio_spec=objective.codec.audio_spec,
                    crop_multiple=objective.crop_multiple,
                    seed=config.trainer.seed,
                    rank=rank,
                    world_size=world_size,
                    start_step=state.step * config.trainer.accumulation,
                    positions=positions,
                )

            batches = read(accelerator.process_index, accelerator.num_processes, loop.place())
            accelerator.wait_for_everyone()  # all have looked at the folder before one writes to it
            if accelerator.is_main_process:
                run.write_config(config, recipe)
            # What a run that stopped has told past its checkpoint is hidden.
            settings = {name: {"purge_step": state.step + 1} for name in config.trainer.trackers if resume}
            accelerator.init_trackers("tensorboard", init_kwargs=settings)
            if found is None:
                loop.begin(read(0, 1, None), dataset, progress=progress)
            periodic = None
            if accelerator.is_main_process:
                samples = Samples(run.samples, accelerator.trackers)
                periodic = Periodic(
                    data, objective, loop.ema, config, accelerator.device, samples, classes=batches.classes
                )
            elapsed = loop.train(
                batches,
                state,
                minutes=minutes,
                elapsed=elapsed,
                checkpoint_every=checkpoint_every,
                checkpoint_minutes=checkpoint_minutes,
                keep=keep,
                periodic=periodic,
                progress=progress,
            )
            if periodic is not None:
                finish(
                    objective,
                    loop.ema,
                    dataset,
                    run,
                    config,
                    recipe=recipe,
                    data=Path(data).resolve().name if Path(data).exists() else str(data),
                    steps=state.step,
                    seconds=elapsed,
                    device=accelerator.device,
                    split=periodic.split,
                    measured=periodic.measured or periodic.measure(state),  # a run that was over has looked before
                )
            accelerator.wait_for_everyone()
    except OSError as error:  # a full disk, or a folder that is not to be written
        raise PartitaError(f"{error.filename or run.path}: {error.strerror or error}") from error
    finally:
        if loop is not None:
            loop.close()
        accelerator.end_training()
    return run.model


def _check_folder(run: RunFolder, config: RunConfig, resume: bool) -> None:
    if resume and (run.config.exists() or checkpoints(run.checkpoints)):
        run.check_resumed(config)
    else:
        run.check_new()


@contextmanager
def _one_writer(
    accelerator: Any, run: RunFolder, config: RunConfig, state: TrainState, *, resume: bool
) -> Iterator[None]:
    """Hold the lock of a run for all processes; of a new one that fails before a step was taken, leave nothing.

    Raises:
        PartitaError: another command writes the run, or has done so since the folder was looked at; in all processes.
    """
    with ExitStack() as held:
        problem, fresh = "", not run.config.exists()
        if accelerator.is_main_process:
            try:
                held.enter_context(run.locked())
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
            kept = isinstance(error, NonFiniteError)  # what it has kept is to be looked at
            if fresh and not kept and not state.step and accelerator.is_main_process:
                for tracker in accelerator.trackers:
                    tracker.finish()
                run.discard()
            raise


def _build(config: RunConfig, init_from: str | Path | None) -> Objective:
    """The objective around a model of its own, or around a part on the latents of a frozen codec.

    Raises:
        PartitaError: the parts of the config do not go together.
    """
    alone = config.model.tag.startswith("autoencoder")
    takes_codec = "codec" in signature(config.objective.build).parameters
    if config.codec is None and not (alone and not takes_codec):
        raise PartitaError(
            f"{config.objective.tag} of {config.model.tag} is trained on a codec; name it with codec=FOLDER"
        )
    if config.codec is not None and (alone or not takes_codec):
        raise PartitaError(f"{config.objective.tag} of {config.model.tag} is trained without a codec; leave codec out")
    codec = None if config.codec is None else load_model(config.codec)
    torch.manual_seed(hashed_seed(config.trainer.seed, "weights"))
    model = build_model(config.model, codec)
    if init_from is not None:
        source = type(model).from_pretrained(init_from) if isinstance(model, Saved) else _quantizer_of(init_from)
        load_weights(model, source.state_dict(), init_from)
    return config.objective.build(model=model, **({} if codec is None else {"codec": Frozen(codec)}))


def _called(dataset: Any) -> str:
    """What the files of a data set are called by, all in all; empty of a stream, whose files nobody has counted."""
    if not hasattr(dataset, "__len__"):
        return ""
    names = names_hash(dataset) if "file_name" in dataset.column_names else "without names"
    return f"{len(dataset)}, {names}"


def _contents(dataset: Any) -> dict[str, str]:
    """Digests of some of the files of a data set; of a stream none, which would have to be read for them."""
    return sample_digests(dataset) if hasattr(dataset, "__len__") else {}


def _quantizer_of(folder: str | Path) -> nn.Module:
    found = getattr(load_model(folder), "quantizer", None)
    if not isinstance(found, nn.Module):
        raise PartitaError(f"{folder} holds no quantizer to start from")
    return found
