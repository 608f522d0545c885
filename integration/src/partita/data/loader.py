"""Endless batches of training crops: a batch depends on the seed and its number, not on workers or restarts."""

import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from partita_core import AudioSpec, PartitaError, first_line, hashed_seed
from torch import Generator
from torch.utils.data import DataLoader, Sampler

from .audio_crops import AudioCrops
from .batches import Batch, collate
from .corpus.spec import corpus_spec
from .crops import Crops
from .data_config import DataConfig
from .latent_crops import LatentCrops
from .streaming import CropStream, StreamLoader, StreamPosition, initial_positions

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Key = tuple[int, int]
"""An epoch, and a row of the data set."""

# Seconds that a worker continues after SIGTERM.
_GRACE_SECONDS = 60


class EpochSampler(Sampler[list[Key]]):
    """Keys (epoch, index) of the batches from number `start_step` on, without end.

    Epochs, each in its own random order, are concatenated and cut into batches: nothing is dropped, nothing is repeated
    within an epoch, and a batch larger than the data set holds several crops per file, from several epochs.

    Args:
        num_items: rows of the data set.
        batch_size: crops per batch, over all processes.
        seed: seed of the orders.
        rank: rank of this process, which gets its consecutive share of every batch.
        world_size: number of processes.
        start_step: number of the first batch.

    Raises:
        PartitaError: the batch size is not divisible by the number of processes.
    """

    def __init__(
        self,
        *,
        num_items: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ):
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self.share, self.rank, self.start_step = share_of(batch_size, world_size), rank, start_step

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, torch.empty(0)
        start = self.start_step * self.batch_size + self.rank * self.share
        while True:
            keys = []
            for position in range(start, start + self.share):
                if position // self.num_items != epoch:
                    epoch = position // self.num_items
                    order = self._order(epoch)
                keys.append((epoch, int(order[position % self.num_items])))
            yield keys
            start += self.batch_size

    def _order(self, epoch: int) -> torch.Tensor:
        generator = Generator().manual_seed(hashed_seed(self.seed, "order", epoch))
        return torch.randperm(self.num_items, generator=generator)


class CropLoader(DataLoader):
    """Endless `DataLoader` of batches of crops; made by `build_loader`.

    Attributes:
        classes: class names of each class column in `DataConfig.columns`, by index.
    """

    def __init__(self, crops: Crops, **settings: Any) -> None:
        self.classes = crops.columns.classes
        super().__init__(_Batches(crops), batch_size=None, **settings)

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, PartitaError):
                raise batch
            yield batch


class _Batches(torch.utils.data.Dataset):
    """Batches, indexed by the keys of their items."""

    def __init__(self, crops: Crops):
        self.crops = crops

    def __getitem__(self, keys: list[Key]) -> Any:
        try:
            return collate([self.crops[key] for key in keys])
        except PartitaError as error:
            return error  # raised in a worker, it would arrive with a traceback in its message


def build_loader(
    dataset: "Dataset | IterableDataset",
    config: DataConfig,
    *,
    audio_spec: AudioSpec,
    crop_multiple: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    start_step: int = 0,
    positions: Sequence[StreamPosition] | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> CropLoader | StreamLoader:
    """Build an endless loader of batches number `start_step`, `start_step + 1` and so on.

    A batch depends on the seed, its number, and the data set only: not on the number of workers or processes (which
    share the same batch) nor on where a run was resumed. Batches of a stream also depend on the number of workers and
    processes, and a resumed run continues from `positions`.

    Args:
        dataset: data set, corpus, or stream, as `open_dataset` returns it.
        config: cropping, augmentation, batching, and labels.
        audio_spec: audio that the network takes.
        crop_multiple: divisor of the length of a crop, in samples.
        seed: seed of orders, crops, and augmentation.
        rank: rank of this process.
        world_size: number of processes.
        start_step: number of the first batch; not used for a stream.
        positions: `StreamLoader.positions` to continue a stream from.
        classes: `classes` of the training loader, so that indices of string columns agree; None for those of the data
            set.

    Raises:
        PartitaError: as `AudioCrops`, `LatentCrops` and `EpochSampler`, or a stream has fewer shards than there are
            processes; while iterating, no file can be read.
    """
    crop_samples = config.crop_samples(audio_spec.sample_rate, crop_multiple)
    kind = AudioCrops if corpus_spec(dataset) is None else LatentCrops
    crops = kind(dataset, audio_spec=audio_spec, crop_samples=crop_samples, config=config, seed=seed, classes=classes)
    settings = {
        "num_workers": config.num_workers,
        "collate_fn": _identity,
        "worker_init_fn": _ignore_signals,
        "pin_memory": torch.cuda.is_available(),
        # Seeds workers, which draw nothing from it; without it, every iteration would advance torch's global state.
        "generator": Generator(),
    }
    if config.streaming:
        stream: Any = dataset
        return _stream(crops, stream, settings, rank=rank, world_size=world_size, positions=positions)
    sampler = EpochSampler(
        num_items=len(crops),
        batch_size=config.batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        start_step=start_step,
    )
    return CropLoader(crops, sampler=sampler, **settings)


def _stream(
    crops: Crops,
    dataset: "IterableDataset",
    settings: dict[str, Any],
    *,
    rank: int,
    world_size: int,
    positions: Sequence[StreamPosition] | None,
) -> StreamLoader:
    config = crops.config
    initial = initial_positions(dataset.num_shards, workers=config.num_workers, rank=rank, world_size=world_size)
    if positions is not None and sorted(position[0] for position in positions) != [start[0] for start in initial]:
        was, now = (sorted(position[0] for position in each) for each in (positions, initial))
        raise PartitaError(
            f"the run to resume read the streams {was} in this process, not {now}; resume with the same number of "
            "processes and of data.num_workers"
        )
    stream = CropStream(
        crops,
        dataset,
        share=share_of(config.batch_size, world_size),
        num_streams=len(initial) * world_size,
        positions=initial if positions is None else positions,
    )
    return StreamLoader(stream, **settings | {"num_workers": min(config.num_workers, len(initial))})


@contextmanager
def reported_readers() -> Iterator[None]:
    """Report a killed reading process in one line; torch raises it at any point of the main process.

    Raises:
        PartitaError: a process of a loader was killed.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        killed = "DataLoader worker" in str(error) or (_is_from_loader(error) and not isinstance(error, RuntimeError))
        if not killed:
            raise
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise again, in the middle of this report
        reason = "a process that reads the data was killed, as happens when memory runs out"
        advice = "lower data.num_workers or data.batch_size"
        raise PartitaError(f"{reason}; {advice} ({first_line(error)})") from error


def _is_from_loader(error: BaseException) -> bool:
    """True for an error raised while a batch is fetched: a process that is killed meanwhile breaks the connection."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "torch.utils.data.dataloader" for frame, _ in frames)


def share_of(batch_size: int, world_size: int) -> int:
    """Items of a batch per process.

    Raises:
        PartitaError: the batch size is not divisible by the number of processes.
    """
    if batch_size % world_size:
        raise PartitaError(
            f"a batch of {batch_size} is not divisible by {world_size} processes; change data.batch_size"
        )
    return batch_size // world_size


def _ignore_signals(worker: int) -> None:
    """Keep a worker running through signals to the whole process group, so that the main process can end its step.

    SIGTERM takes effect after a delay: it also ends a worker that does not end by itself.
    """
    if hasattr(signal, "alarm"):  # absent on Windows, as are the signals
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_SECONDS))


def _identity(batch: Any) -> Any:
    return batch
