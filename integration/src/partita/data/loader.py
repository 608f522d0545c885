"""Endless batches: batch number s is the same whoever reads it, however often the run was stopped before."""

import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from partita_core import AudioSpec, PartitaError, first_line, hashed_seed
from torch import Generator
from torch.utils.data import DataLoader, Sampler

from .corpus.read import corpus_spec
from .crops import Batch, Crops, DataConfig, LatentCrops, collate
from .streaming import CropStream, Place, StreamLoader, first_places

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Key = tuple[int, int]

# Seconds that a worker goes on after SIGTERM.
_LATER = 60


class EpochSampler(Sampler[list[Key]]):
    """The keys (epoch, index) of batch `start_step`, `start_step + 1` and so on, without end.

    Epochs, each in a random order of its own, are laid end to end and cut into batches. So nothing is dropped,
    nothing comes twice in an epoch, and a set smaller than a batch fills it with several epochs, that is several
    crops of a file.

    Args:
        num_items: files of the data set.
        batch_size: crops in a batch, over all processes.
        seed: of the orders.
        rank: this process; it gets its consecutive share of every batch.
        world_size: number of processes.
        start_step: number of the first batch.

    Raises:
        PartitaError: the batch cannot be shared evenly.
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
        position = self.start_step * self.batch_size + self.rank * self.share
        while True:
            keys = []
            for place in range(position, position + self.share):
                if place // self.num_items != epoch:
                    epoch = place // self.num_items
                    order = self._order(epoch)
                keys.append((epoch, int(order[place % self.num_items])))
            yield keys
            position += self.batch_size

    def _order(self, epoch: int) -> torch.Tensor:
        generator = Generator().manual_seed(hashed_seed(self.seed, "order", epoch))
        return torch.randperm(self.num_items, generator=generator)


class CropLoader(DataLoader):
    """A `DataLoader` of whole batches that never ends; `build_loader` makes it."""

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, PartitaError):
                raise batch
            yield batch


class _Batches(torch.utils.data.Dataset):
    """Batches by the keys of their items."""

    def __init__(self, crops: Crops | LatentCrops):
        self.crops = crops

    def __getitem__(self, keys: list[Key]) -> Any:
        try:
            return collate([self.crops[key] for key in keys])
        except PartitaError as error:
            return error  # raised in a worker, its one line would come out inside a traceback


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
    places: Sequence[Place] | None = None,
) -> CropLoader | StreamLoader:
    """A loader of batches number `start_step`, `start_step + 1` and so on, without end.

    A batch depends on the seed, its number and the data set only: not on the number of workers or processes (together
    they get the same batch, each its share) nor on where a run was resumed. Of a stream it depends on the number of
    workers and processes too, and a resumed run goes on from `places`.

    Args:
        dataset: as `open_dataset` returns it, of audio or of latents.
        config: how to cut, vary and batch.
        audio_spec: the audio that the network takes.
        crop_multiple: what the length of a crop must be a multiple of, in samples.
        seed: of orders, places and variations.
        rank: this process.
        world_size: number of processes.
        start_step: number of the first batch; not of a stream.
        places: what `StreamLoader.places` was, where a stream is to go on.

    Raises:
        PartitaError: as `Crops` and `EpochSampler`, and a stream has fewer shards than there are processes; while
            iterating, if no file can be read.
    """
    crop_samples = config.crop_samples(audio_spec.sample_rate, crop_multiple)
    kind = Crops if corpus_spec(dataset) is None else LatentCrops
    crops = kind(dataset, audio_spec=audio_spec, crop_samples=crop_samples, config=config, seed=seed)
    settings = {
        "num_workers": config.num_workers,
        "collate_fn": _as_it_is,
        "worker_init_fn": _left_to_the_main_process,
        "pin_memory": torch.cuda.is_available(),
        # seeds workers, which draw nothing; without it every iteration would move torch's global state
        "generator": Generator(),
    }
    if config.stream is not None:
        return _stream(crops, dataset, config, settings, seed=seed, rank=rank, world_size=world_size, places=places)
    sampler = EpochSampler(
        num_items=len(crops),
        batch_size=config.batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        start_step=start_step,
    )
    return CropLoader(_Batches(crops), sampler=sampler, batch_size=None, **settings)


def _stream(
    crops: Crops | LatentCrops,
    dataset: Any,
    config: DataConfig,
    settings: dict[str, Any],
    *,
    seed: int,
    rank: int,
    world_size: int,
    places: Sequence[Place] | None,
) -> StreamLoader:
    assert config.stream is not None
    started = first_places(dataset.num_shards, workers=config.num_workers, rank=rank, world_size=world_size)
    if places is not None and sorted(place[0] for place in places) != [place[0] for place in started]:
        raise PartitaError("the data is read by another number of processes than before; resume with as many")
    stream = CropStream(
        crops,
        dataset,
        share=share_of(config.batch_size, world_size),
        block=config.stream,
        seed=seed,
        streams=len(started) * world_size,
        places=started if places is None else places,
    )
    return StreamLoader(stream, **settings | {"num_workers": min(config.num_workers, len(started))})


@contextmanager
def reported_readers() -> Iterator[None]:
    """Report a reading process that was killed in one line; torch raises it wherever the main process is just then.

    Raises:
        PartitaError: a process of a loader has ended before its time.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        killed = "DataLoader worker" in str(error) or (_fetching(error) and not isinstance(error, RuntimeError))
        if not killed:
            raise
        if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGCHLD, signal.SIG_DFL
            )  # torch would complain again, wherever the report is just then
        reason = "a process that reads the data was killed, as happens when memory runs out; take fewer "
        raise PartitaError(f"{reason}data.num_workers, or a smaller data.batch_size ({first_line(error)})") from error


def _fetching(error: BaseException) -> bool:
    """True of an error from taking over a batch: a process that is killed meanwhile breaks the connection."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "torch.utils.data.dataloader" for frame, _ in frames)


def share_of(batch_size: int, world_size: int) -> int:
    """Items of a batch that one process gets.

    Raises:
        PartitaError: the batch cannot be shared evenly.
    """
    if batch_size % world_size:
        raise PartitaError(f"a batch of {batch_size} cannot be shared evenly by {world_size} processes")
    return batch_size // world_size


def _left_to_the_main_process(worker: int) -> None:
    """Let a worker live through signals to the whole group, so that the main process can end its step.

    SIGTERM ends it later: it is also how a worker is ended that does not end by itself.
    """
    if hasattr(signal, "alarm"):  # Windows has none of these
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_LATER))


def _as_it_is(batch: Any) -> Any:
    return batch
