"""Training crops of audio files: random excerpts, resampled, augmented, and never silent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from partita_core import AudioSpec, ChannelLayout, PartitaError
from torch import Generator, Tensor

from .audio.files import AudioInfo, AudioSource, audio_info, source_name
from .audio.resampling import read_resampled, resampled_length
from .augment import chance, draw_format, mixed, plain_format, unvaried, vary
from .batches import Item
from .crops import Crops, SilentError
from .data_config import DataConfig
from .datasets import row_source
from .pieces import is_silent

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class AudioCrops(Crops):
    """Crops of audio files at the network's sample rate and in one of its channel layouts.

    Only the samples that a crop depends on are decoded. A file shorter than a crop is padded with zeros.

    Args:
        dataset: data set or stream of audio, as `open_dataset` returns it.
        audio_spec: audio that the network takes.
        crop_samples: samples per crop, at the network's sample rate.
        config: cropping, augmentation, and labels; `crop_seconds` and `batch_size` are not used.
        seed: seed of all random draws.
        classes: class names for string columns, as of another split; None for those of the data set.

    Raises:
        PartitaError: the data set is empty, the augmentation has no format for the layouts of the network, or a column
            for texts or labels is missing.
    """

    kind = "audio"

    def __init__(
        self,
        dataset: "Dataset | IterableDataset",
        *,
        audio_spec: AudioSpec,
        crop_samples: int,
        config: DataConfig,
        seed: int,
        classes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(dataset, config=config, seed=seed, classes=classes)
        if config.augmentation is not None:
            config.augmentation.formats(audio_spec.layouts)
        self.audio_spec, self.crop_samples = audio_spec, crop_samples

    def _draw(self, row: dict[str, Any], index: int, generator: Generator, allow_silence: bool) -> tuple[Item, bool]:
        source = row_source(row, index)
        info, rate = audio_info(source), self.audio_spec.sample_rate
        length = resampled_length(info.frames, info.sample_rate, rate)
        if length == 0:
            raise PartitaError(f"{source_name(source)}: holds no samples at {rate} Hz")
        is_whole_file = length <= self.crop_samples
        audio, layout = self._draw_audible(source, info, length, generator, allow_silence)
        return self._item(audio, layout, generator), is_whole_file

    def _draw_audible(
        self, source: AudioSource, info: AudioInfo, length: int, generator: Generator, allow_silence: bool
    ) -> tuple[Tensor, ChannelLayout]:
        """A crop `(1 or 2, at most crop_samples)` in its channel layout, drawn again while it is silent."""
        # Another crop, or another format of a short stereo file, may not be silent.
        varies = length > self.crop_samples or (self.config.augmentation is not None and info.channels == 2)
        draws = 1 + (self.config.max_silent_retries if varies and not allow_silence else 0)
        cancels = False
        for _ in range(draws):
            read = self._mix(self._read(source, info, length, generator), generator)
            audio, layout = self._format(read, generator)
            if allow_silence or not is_silent(audio, self.config.silence_db):
                return audio, layout
            cancels = cancels or not is_silent(read, self.config.silence_db)
        problem = "its channels cancel each other" if cancels else "is silent"
        where = f" in all of {draws} crops" if length > self.crop_samples else ""
        raise SilentError(f"{source_name(source)}: {problem}, below {self.config.silence_db:g} dB{where}")

    def _read(self, source: AudioSource, info: AudioInfo, length: int, generator: Generator) -> Tensor:
        """A random crop of a file, or all of a shorter one."""
        frames = min(length, self.crop_samples)
        start = int(torch.randint(length - frames + 1, (), generator=generator))
        return read_resampled(source, info, start, frames, self.audio_spec.sample_rate)

    def _mix(self, audio: Tensor, generator: Generator) -> Tensor:
        """The crop, with a crop of another file added with probability `Augmentation.mix`."""
        settings = self.config.augmentation
        if settings is None or not settings.mix or not chance(settings.mix, generator):
            return audio
        other = int(torch.randint(len(self.dataset), (), generator=generator))
        source = row_source(self.dataset[other], other)
        try:
            info = audio_info(source)
            length = resampled_length(info.frames, info.sample_rate, self.audio_spec.sample_rate)
            return mixed(audio, self._read(source, info, length, generator))
        except PartitaError:
            return audio  # reported when it is that file's own turn

    def _format(self, audio: Tensor, generator: Generator) -> tuple[Tensor, ChannelLayout]:
        """The audio in a drawn channel format; mid/side is still left and right."""
        settings = self.config.augmentation
        if settings is None:
            return plain_format(audio, self.audio_spec)
        return draw_format(audio, self.audio_spec, settings, generator)

    def _item(self, audio: Tensor, layout: ChannelLayout, generator: Generator) -> Item:
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
        )
