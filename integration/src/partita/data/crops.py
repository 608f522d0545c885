"""Training crops: each a function of (seed, epoch, index) and of nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError, hashed_seed, network_layout
from partita_core.ranges import Count, Extras, Level, Range, Ranged
from torch import Generator, Tensor

from .audio.files import AudioSource, audio_info, source_name
from .audio.resampling import read_resampled, resampled_length
from .augment import Augmentation, chance, draw_format, mixed, plain_format, unvaried, vary
from .corpus.read import corpus_spec
from .datasets import row_name, row_source
from .pieces import is_silent
from .texts import TextTask, check_texts, draw_text

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# Files tried for one crop before the data set is given up.
ATTEMPTS = 64

# Seconds of a crop: an hour of stereo is more than a gigabyte.
_LONGEST = 3600


class SilentError(PartitaError):
    """A file is silent wherever it was looked at."""


class SkippedFile(str):
    """A file that was left out, as "name: reason".

    The reason may say where in the file it was met, and so be another for every crop: it is by `file` that files are
    told apart and counted.

    Attributes:
        file: what its row, or the shard, is called.
    """

    file: str

    def __new__(cls, reason: object, file: str = "") -> "SkippedFile":
        """Of what a `PartitaError` says; what a worker sends gets its `file` afterwards."""
        found = super().__new__(cls, reason)
        found.file = file
        return found


@dataclass(frozen=True)
class DataConfig(Ranged):
    """How training data is cut, varied and batched.

    Attributes:
        crop_seconds: length of a crop, rounded to the nearest multiple that the objective takes.
        batch_size: crops in a batch, over all processes.
        num_workers: processes of each training process that read; 0 reads in the training process itself.
        augmentation: how crops are varied; None leaves them as they are.
        silence_db: a crop is drawn again when, with its channels in the format of the network, the root mean square of
            its deviation from the mean is below this level, in dB of full scale; None takes all.
        max_silent_retries: maximum number of such draws; the file is then skipped and reported, like an unreadable one.
        texts: what may be asked about a crop; one of those that apply to it is drawn.
        stream: rows that are mixed at a time, where a data set is to be read as a stream, shard by shard, instead of
            being copied to the cache and read at random; None for that.

    Of a corpus of stored latents, crops are neither varied nor listened to for silence.
    """

    crop_seconds: Annotated[float, Range(0, _LONGEST, open_low=True)] = 1.5
    batch_size: Annotated[int, Range(1, 1 << 20)] = 16
    num_workers: Extras = 2
    augmentation: Augmentation | None = Augmentation()
    silence_db: Level | None = -60.0
    max_silent_retries: Extras = 3
    texts: tuple[TextTask, ...] = ()
    stream: Count | None = None

    def __post_init__(self) -> None:
        """Check that mixing has what it needs."""
        super().__post_init__()
        if self.augmentation is not None and self.augmentation.mix:
            found = f"augmentation.mix is {self.augmentation.mix}"
            if self.texts:
                raise PartitaError(f"{found}, and a text is of one of the two clips; leave out texts or mix")
            if self.stream is not None:
                raise PartitaError(f"{found}, and a stream has no other file at hand; leave out stream or mix")

    def crop_samples(self, sample_rate: int, crop_multiple: int) -> int:
        """Samples of a crop: the multiple of `crop_multiple` that is nearest to `crop_seconds`, and at least one."""
        return max(1, round(self.crop_seconds * sample_rate / crop_multiple)) * crop_multiple


class Item(TypedDict, total=False):
    """One crop, of audio or of stored latents.

    Attributes:
        audio: `(channels, samples)` float32, as the network sees it.
        latents: `(dim, frames * K)` float32, zero past the end.
        codes: `(num_quantizers, frames * K)` int64, -1 past the end.
        audio_lengths: samples that are audio; zeros follow.
        layout: of the audio, as the network is told.
        target_layout: the layout asked of the decoder; of audio only.
        index: the row of the data set it comes from; of a stream, which row of its shard it was.
        file_name: of the row.
        prompt: what is asked, "" for nothing; where the config has texts.
        answer: what is to follow.
        broken: files that were to be read and could not.
    """

    audio: Tensor
    latents: Tensor
    codes: Tensor
    audio_lengths: int
    layout: int
    target_layout: int
    index: int
    file_name: str
    prompt: str
    answer: str
    broken: list[SkippedFile]


class Batch(TypedDict, total=False):
    """What an objective is given; the data pipeline fills all but the last.

    Attributes:
        audio: `(batch, channels, samples)` float32, as the network sees it; of a data set of audio.
        latents: `(batch, dim, frames * K)` float32, zero past an item's end; of a corpus of latents.
        codes: `(batch, num_quantizers, frames * K)` int64, -1 past an item's end; of a corpus with codes.
        audio_lengths: `(batch,)` int64, samples that are audio.
        layout: `(batch,)` int64.
        target_layout: `(batch,)` int64; of a data set of audio.
        index: `(batch,)` int64, rows of the data set, or of the shards of a stream.
        file_name: of each item.
        prompt: what is asked of each item, "" for nothing; where the config has texts.
        answer: what is to follow.
        broken: files that could not be read and were replaced by others.
        samples: what the phase before made, detached.
    """

    audio: Tensor
    latents: Tensor
    codes: Tensor
    audio_lengths: Tensor
    layout: Tensor
    target_layout: Tensor
    index: Tensor
    file_name: list[str]
    prompt: list[str]
    answer: list[str]
    broken: list[SkippedFile]
    samples: Tensor


class Crops(torch.utils.data.Dataset):
    """Crops of the files of a data set, one of each file an epoch.

    `crops[epoch, index]` is file `index` of the data set at a random place, at the sample rate and in the form that
    the network takes. Only what the crop needs is decoded. A file shorter than a crop is followed by zeros. A file
    that cannot be read, or is silent wherever it is cut, is replaced by another, chosen by (seed, epoch, index), and
    named in `broken`; where all others are no better, silence is taken.

    Args:
        dataset: as `open_dataset` returns it.
        audio_spec: the audio that the network takes.
        crop_samples: length of a crop, at the network's sample rate.
        config: how to cut and vary; `crop_seconds` and `batch_size` are not looked at.
        seed: of everything that is drawn.

    Raises:
        PartitaError: the data set is empty, the augmentation has no format for these layouts, or a text needs a column
            that is not there.
    """

    def __init__(
        self,
        dataset: "Dataset | IterableDataset",
        *,
        audio_spec: AudioSpec,
        crop_samples: int,
        config: DataConfig,
        seed: int,
    ) -> None:
        if _is_empty(dataset):
            raise PartitaError("the data set holds no audio")
        if config.augmentation is not None:
            config.augmentation.formats(audio_spec.layouts)
        check_texts(config.texts, dataset.column_names or ())
        self.dataset: Any = dataset
        self.audio_spec, self.crop_samples = audio_spec, crop_samples
        self.config, self.seed = config, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        def read(row: dict[str, Any], candidate: int, generator: Generator, silence: bool) -> Item:
            return self.cut(row, candidate, generator, silence=silence)

        return _first_readable(read, self.dataset, key, seed=self.seed)

    def cut(self, row: dict[str, Any], index: int, generator: Generator, *, silence: bool = False) -> Item:
        """A crop of the file of a row; of one that is silent only if `silence` will do.

        Raises:
            PartitaError: it cannot be read.
            SilentError: it is silent.
        """
        audio, layout, whole = self._draw(row_source(row, index), generator, silence)
        item = self._item(audio, layout, index, generator)
        return item | _named(row, index) | _texts(self.config, row, whole, generator)

    def _draw(self, source: AudioSource, generator: Generator, silence: bool) -> tuple[Tensor, ChannelLayout, bool]:
        """A crop `(1 or 2, at most crop_samples)` that is not silent in its layout, and whether it is the whole."""
        info, rate = audio_info(source), self.audio_spec.sample_rate
        length = resampled_length(info.frames, info.sample_rate, rate)
        frames = min(length, self.crop_samples)
        if frames == 0:
            raise PartitaError(f"{source_name(source)}: holds no samples at {rate} Hz")
        # Another crop, or of a short stereo file another format, may not be silent.
        varies = length > frames or (self.config.augmentation is not None and info.channels == 2)
        draws = 1 + (self.config.max_silent_retries if varies and not silence else 0)
        cancels = False
        for _ in range(draws):
            start = int(torch.randint(length - frames + 1, (), generator=generator))
            read = self._mixed(read_resampled(source, info, start, frames, rate), generator)
            audio, layout = self._format(read, generator)
            if silence or not is_silent(audio, self.config.silence_db):
                return audio, layout, length == frames
            cancels = cancels or not is_silent(read, self.config.silence_db)
        problem = "its channels cancel each other" if cancels else "is silent"
        where = "" if length == frames else f", wherever it was cut ({draws} times)"
        raise SilentError(f"{source_name(source)}: {problem}, below {self.config.silence_db:g} dB{where}")

    def _mixed(self, audio: Tensor, generator: Generator) -> Tensor:
        """The crop, with one of another file added by the probability `Augmentation.mix`."""
        settings = self.config.augmentation
        if settings is None or not settings.mix or not chance(settings.mix, generator):
            return audio
        other = int(torch.randint(len(self.dataset), (), generator=generator))
        source, rate = row_source(self.dataset[other], other), self.audio_spec.sample_rate
        try:
            info = audio_info(source)
            length = resampled_length(info.frames, info.sample_rate, rate)
            start = int(torch.randint(max(1, length - self.crop_samples + 1), (), generator=generator))
            return mixed(audio, read_resampled(source, info, start, min(length, self.crop_samples), rate))
        except PartitaError:
            return audio  # the epoch's own turn of that file names the fault

    def _format(self, audio: Tensor, generator: Generator) -> tuple[Tensor, ChannelLayout]:
        """The channels that the network gets; mid/side is still left and right."""
        settings = self.config.augmentation
        if settings is None:
            return plain_format(audio, self.audio_spec)
        return draw_format(audio, self.audio_spec, settings, generator)

    def _item(self, audio: Tensor, layout: ChannelLayout, index: int, generator: Generator) -> Item:
        settings, length = self.config.augmentation, audio.shape[-1]
        if settings is None:
            example = unvaried(audio, layout, self.audio_spec)
        else:
            example = vary(audio, layout, self.audio_spec, settings, generator)
        padded = torch.zeros(self.audio_spec.channels, self.crop_samples)
        padded[:, :length] = example.audio
        return Item(
            audio=padded,
            audio_lengths=length,
            layout=int(example.layout),
            target_layout=int(example.target_layout),
            index=index,
        )


class LatentCrops(torch.utils.data.Dataset):
    """Crops of the files of a corpus of latents, one of each file an epoch.

    `crops[epoch, index]` is file `index` from a random frame on; zeros follow one that is shorter than a crop.

    Args:
        dataset: a corpus, as `open_dataset` returns it.
        audio_spec: the audio that the codec takes.
        crop_samples: length of a crop, as samples of the audio.
        config: `texts` is looked at.
        seed: of everything that is drawn.

    Raises:
        PartitaError: the data set holds no latents, or a text needs a column that is not there.
    """

    def __init__(
        self,
        dataset: "Dataset | IterableDataset",
        *,
        audio_spec: AudioSpec,
        crop_samples: int,
        config: DataConfig,
        seed: int,
    ) -> None:
        spec = corpus_spec(dataset)
        if spec is None or _is_empty(dataset):
            raise PartitaError("the data set holds no latents")
        check_texts(config.texts, dataset.column_names or ())
        self.dataset: Any = dataset
        self.spec, self.layouts = spec, audio_spec.layouts
        self.frames = max(1, crop_samples // spec.latent.hop)
        self.config, self.seed = config, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        def read(row: dict[str, Any], candidate: int, generator: Generator, silence: bool) -> Item:
            return self.cut(row, candidate, generator)

        return _first_readable(read, self.dataset, key, seed=self.seed)

    def cut(self, row: dict[str, Any], index: int, generator: Generator) -> Item:
        """A crop of the latents of a row.

        Raises:
            PartitaError: it is damaged.
        """
        self.spec.check_row(row)
        frames = min(row["frames"], self.frames)
        start = int(torch.randint(row["frames"] - frames + 1, (), generator=generator))
        left = row["audio_length"] - start * self.spec.latent.hop
        item = Item(
            audio_lengths=min(left, frames * self.spec.latent.hop),
            layout=int(network_layout(ChannelLayout(row["layout"]), self.layouts)),
            index=index,
        )
        tokens = self.frames * self.spec.latent.tokens_per_frame
        for name, part in self.spec.unpack(row, start, frames).items():
            if name != "gain":
                padded = torch.full((part.shape[0], tokens), -1 if name == "codes" else 0, dtype=part.dtype)
                padded[:, : part.shape[1]] = part
                item[name] = padded
        return item | _named(row, index) | _texts(self.config, row, frames == row["frames"], generator)


def _first_readable(
    read: Callable[[dict[str, Any], int, Generator, bool], Item], dataset: Any, key: tuple[int, int], *, seed: int
) -> Item:
    """What `read` makes of the row that is due, or of another where that is broken; all that were are named."""
    (epoch, index), count = key, len(dataset)
    generator = Generator().manual_seed(hashed_seed(seed, "crop", epoch, index))
    broken: list[SkippedFile] = []
    silent: list[int] = []
    for candidate in _candidates(epoch, index, count=count, seed=seed):
        row = dataset[candidate]
        try:
            return read(row, candidate, generator, False) | Item(broken=broken)
        except PartitaError as error:
            broken.append(SkippedFile(error, row_name(row, candidate)))
            silent += [candidate] if isinstance(error, SilentError) else []
    if silent:
        return read(dataset[silent[0]], silent[0], generator, True) | Item(broken=broken)
    raise PartitaError(f"{len(broken)} files in a row cannot be read, of {count}; the first: {broken[0]}")


def _candidates(epoch: int, index: int, *, count: int, seed: int) -> Iterator[int]:
    """`index`, then, for the case that it is broken, others in an order of their own."""
    yield index
    generator = Generator().manual_seed(hashed_seed(seed, "replacement", epoch, index))
    others = torch.randperm(count, generator=generator)[:ATTEMPTS].tolist()
    yield from (other for other in others if other != index)


def collate(items: list[Item]) -> Batch:
    """Stacks items to a batch."""
    batch: dict[str, Any] = {"broken": [reason for item in items for reason in item["broken"]]}
    for name in items[0].keys() - {"broken"}:
        values = [item[name] for item in items]
        if isinstance(values[0], Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = values if isinstance(values[0], str) else torch.tensor(values)
    return Batch(**batch)


def _is_empty(dataset: "Dataset | IterableDataset") -> bool:
    """Whether it has no rows; of a stream that shows when it is read."""
    return getattr(dataset, "num_rows", None) == 0


def _named(row: dict[str, Any], index: int) -> Item:
    return Item(file_name=row_name(row, index))


def _texts(config: DataConfig, row: dict[str, Any], whole: bool, generator: Generator) -> Item:
    if not config.texts:
        return Item()
    prompt, answer = draw_text(config.texts, row, whole=whole, generator=generator)
    return Item(prompt=prompt, answer=answer)
