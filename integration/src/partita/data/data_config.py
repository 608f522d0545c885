"""Settings of training data: cropping, batching, augmentation, labels, and filtering."""

from dataclasses import dataclass
from typing import Annotated

from partita_core import PartitaError
from partita_core.ranges import Count, Extras, Level, Range, Ranged

from .augment import Augmentation
from .texts import TextTask
from .where import parse_where

# One hour of stereo is more than a gigabyte.
_MAX_CROP_SECONDS = 3600


@dataclass(frozen=True)
class DataConfig(Ranged):
    """Settings of training data.

    A corpus of stored latents is neither augmented nor checked for silence.

    Attributes:
        crop_seconds: length of a crop, rounded to the nearest multiple that the objective takes.
        batch_size: crops per batch, over all processes.
        num_workers: reading processes per training process; 0 reads in the training process itself.
        augmentation: random variation of crops; None for none.
        silence_db: level in dB of full scale below which a crop is drawn again; the level is the RMS around the mean,
            measured in the channel layout of the network. None accepts silence.
        max_silent_retries: maximum number of such draws; the file is then skipped and reported, like an unreadable one.
        texts: text tasks; one of those that apply to a crop is drawn.
        columns: numeric and class columns of the data set to put in `Batch.columns`.
        where: conditions `COLUMN=VALUE`, joined by commas, that the rows used must meet; "" for all rows.
        streaming: read a data set shard by shard, instead of copying it to the cache and reading it at random.
        shuffle_buffer: rows of a stream that are shuffled at a time; without effect unless `streaming`.
    """

    crop_seconds: Annotated[float, Range(0, _MAX_CROP_SECONDS, open_low=True)] = 1.5
    batch_size: Annotated[int, Range(1, 1 << 20)] = 16
    num_workers: Extras = 2
    augmentation: Augmentation | None = Augmentation()
    silence_db: Level | None = -60.0
    max_silent_retries: Extras = 3
    texts: tuple[TextTask, ...] = ()
    columns: tuple[str, ...] = ()
    where: str = ""
    streaming: bool = False
    shuffle_buffer: Count = 256

    def __post_init__(self) -> None:
        """Check the conditions, and that mixing has what it needs."""
        super().__post_init__()
        parse_where(self.where)
        if self.augmentation is not None and self.augmentation.mix:
            found = f"augmentation.mix is {self.augmentation.mix}"
            if self.texts:
                raise PartitaError(f"{found}, but a text describes only one of the two clips; leave out texts or mix")
            if self.columns:
                raise PartitaError(f"{found}, but columns describe only one of the two clips; leave out columns or mix")
            if self.streaming:
                raise PartitaError(f"{found}, but a stream cannot read a second file; set streaming=false or mix=0")

    def crop_samples(self, sample_rate: int, crop_multiple: int) -> int:
        """Samples per crop: the multiple of `crop_multiple` nearest to `crop_seconds`, at least one."""
        return max(1, round(self.crop_seconds * sample_rate / crop_multiple)) * crop_multiple
