"""Training crops: each a function of (seed, epoch, index) and of nothing else."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import torch
from partita_core import AudioSpec, PartitaError, hashed_seed
from torch import Generator, Tensor

from .audio import audio_info
from .augment import Augmentation, augment, plain
from .resampling import read_resampled, resampled_length

if TYPE_CHECKING:
    from datasets import Dataset

# Files tried for one crop before the data set is given up.
_ATTEMPTS = 64


@dataclass(frozen=True)
class DataConfig:
    """How training data is cut, varied and batched.

    Attributes:
        crop_seconds: length of a crop, rounded to the nearest multiple that the objective takes.
        batch_size: crops in a batch, over all processes.
        num_workers: processes of each training process that read; 0 reads in the training process itself.
        augmentation: how crops are varied; None leaves them as they are.
        silence_db: a crop whose root mean square is below this level, in dB of full scale, is drawn again; None takes
            all.
        redraws: how often at most; the last is taken whatever it is.
    """

    crop_seconds: float = 1.5
    batch_size: int = 16
    num_workers: int = 2
    augmentation: Augmentation | None = Augmentation()
    silence_db: float | None = -60.0
    redraws: int = 3

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        for name, least in {"batch_size": 1, "num_workers": 0, "redraws": 0}.items():
            if getattr(self, name) < least:
                raise PartitaError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.crop_seconds <= 0:
            raise PartitaError(f"crop_seconds is {self.crop_seconds}; it must be positive")

    def crop_samples(self, sample_rate: int, crop_multiple: int) -> int:
        """Samples of a crop: the multiple of `crop_multiple` that is nearest to `crop_seconds`, and at least one."""
        return max(1, round(self.crop_seconds * sample_rate / crop_multiple)) * crop_multiple


class Item(TypedDict):
    """One crop.

    Attributes:
        audio: `(channels, samples)` float32, as the network sees it.
        audio_lengths: samples that are audio; zeros follow.
        layout: of the audio, as the network is told.
        target_layout: the layout asked of the decoder.
        index: the row of the data set it comes from.
        broken: "name: reason" of each file that was to be read and could not.
    """

    audio: Tensor
    audio_lengths: int
    layout: int
    target_layout: int
    index: int
    broken: list[str]


class Batch(TypedDict, total=False):
    """What an objective is given; the data pipeline fills the first group, other sources and phases the second.

    Attributes:
        audio: `(batch, channels, samples)` float32, as the network sees it.
        audio_lengths: `(batch,)` int64, samples that are audio.
        layout: `(batch,)` int64.
        target_layout: `(batch,)` int64.
        index: `(batch,)` int64, rows of the data set.
        broken: "name: reason" of files that could not be read and were replaced by others.
        latents: what a stored corpus holds of the audio.
        prompt: texts to supervise with.
        answer: texts that are to follow.
        samples: what the phase before made, detached.
    """

    audio: Tensor
    audio_lengths: Tensor
    layout: Tensor
    target_layout: Tensor
    index: Tensor
    broken: list[str]

    latents: Tensor
    prompt: list[str]
    answer: list[str]
    samples: Tensor


class Crops(torch.utils.data.Dataset):
    """Crops of the files of a data set, one of each file an epoch.

    `crops[epoch, index]` is file `index` of the data set at a random place, at the sample rate and in the form that
    the network takes. Only what the crop needs is decoded. A file shorter than a crop is followed by zeros. A file
    that cannot be read is replaced by another, chosen by (seed, epoch, index), and named in `broken`.

    Args:
        dataset: as `open_dataset` returns it.
        audio_spec: the audio that the network takes.
        crop_samples: length of a crop, at the network's sample rate.
        config: how to cut and vary; `crop_seconds` and `batch_size` are not looked at.
        seed: of everything that is drawn.

    Raises:
        PartitaError: the data set is empty, or the augmentation has no format for these layouts.
    """

    def __init__(self, dataset: "Dataset", *, audio_spec: AudioSpec, crop_samples: int, config: DataConfig, seed: int):
        if len(dataset) == 0:
            raise PartitaError("the data set holds no audio")
        if config.augmentation is not None:
            config.augmentation.formats(audio_spec.layouts)
        self.dataset, self.audio_spec, self.crop_samples = dataset, audio_spec, crop_samples
        self.config, self.seed = config, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        generator = Generator().manual_seed(hashed_seed(self.seed, "crop", epoch, index))
        broken: list[str] = []
        for candidate in self._candidates(epoch, index):
            try:
                audio = self._draw(candidate, generator)
            except PartitaError as error:
                broken.append(str(error))
            else:
                return self._item(audio, candidate, broken, generator)
        raise PartitaError(f"{len(broken)} files in a row cannot be read, of {len(self)}; the first: {broken[0]}")

    def _candidates(self, epoch: int, index: int):
        """`index`, then, for the case that it is broken, others in an order of their own."""
        yield index
        generator = Generator().manual_seed(hashed_seed(self.seed, "replacement", epoch, index))
        others = torch.randperm(len(self), generator=generator)[:_ATTEMPTS].tolist()
        yield from (other for other in others if other != index)

    def _draw(self, index: int, generator: Generator) -> Tensor:
        """A crop `(1 or 2, at most crop_samples)` of file `index` that is not silent, if there is one to be found."""
        source = self.dataset[index]["audio"]
        info, rate = audio_info(source), self.audio_spec.sample_rate
        length = resampled_length(info.frames, info.sample_rate, rate)
        frames = min(length, self.crop_samples)
        if frames == 0:
            raise PartitaError(f"{source['path']}: holds no samples at {rate} Hz")
        redraws = self.config.redraws if length > frames else 0
        while True:
            start = int(torch.randint(length - frames + 1, (), generator=generator))
            audio = read_resampled(source, info, start, frames, rate)
            if redraws == 0 or not self._silent(audio):
                return audio
            redraws -= 1

    def _silent(self, audio: Tensor) -> bool:
        threshold = self.config.silence_db
        return threshold is not None and float(audio.double().square().mean()) < 10 ** (threshold / 10)

    def _item(self, audio: Tensor, index: int, broken: list[str], generator: Generator) -> Item:
        settings, length = self.config.augmentation, audio.shape[-1]
        if settings is None:
            example = plain(audio, self.audio_spec)
        else:
            example = augment(audio, self.audio_spec, settings, generator)
        padded = torch.zeros(self.audio_spec.channels, self.crop_samples)
        padded[:, :length] = example.audio
        return Item(
            audio=padded,
            audio_lengths=length,
            layout=int(example.layout),
            target_layout=int(example.target_layout),
            index=index,
            broken=broken,
        )


def collate(items: list[Item]) -> Batch:
    """Stacks items to a batch."""
    return Batch(
        audio=torch.stack([item["audio"] for item in items]),
        audio_lengths=torch.tensor([item["audio_lengths"] for item in items]),
        layout=torch.tensor([item["layout"] for item in items]),
        target_layout=torch.tensor([item["target_layout"] for item in items]),
        index=torch.tensor([item["index"] for item in items]),
        broken=[reason for item in items for reason in item["broken"]],
    )
