"""Iteration over the files of a data set as full-length clips."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from partita_core import ChannelLayout, PartitaError, default_layout
from torch import Tensor

from .audio.files import read_audio, source_name
from .audio.resampling import resample
from .datasets import row_name, row_source
from .messages import warn_once

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class Clip:
    """Audio of a file or an excerpt of it, with its metadata.

    Attributes:
        index: row in the data set.
        name: `file_name` of the row.
        audio: `(1 or 2, samples)` float32.
        sample_rate: sample rate of `audio` in Hz.
        layout: channel layout, mono or stereo.
        row: the other columns of the row.
    """

    index: int
    name: str
    audio: Tensor
    sample_rate: int
    layout: ChannelLayout
    row: dict[str, Any]


def whole_files(
    dataset: "Dataset", *, sample_rate: int | None = None, mono: bool = False, broken: list[str] | None = None
) -> Iterator[Clip]:
    """Iterate over the files of a data set in its order, each read entirely.

    Args:
        dataset: data set of audio, as `open_dataset` returns it.
        sample_rate: sample rate of the clips in Hz; None for each file's own.
        mono: average the channels of stereo files, as for a mono model.
        broken: list that collects "name: reason" of the files that cannot be read and are left out; None logs them.

    Raises:
        PartitaError: the data set holds no audio; after the last row, no file could be read.
    """
    if "audio" not in dataset.column_names:
        raise PartitaError("the data set holds latents, not audio; pass the data set that was encoded")
    found, failed = False, []

    def leave_out(reason: str) -> None:
        failed.append(reason)
        if broken is None:
            warn_once(f"left out: {reason}")
        else:
            broken.append(reason)

    for index in range(len(dataset)):
        row: Any = dataset[index]
        source = row_source(row, index)
        try:
            audio, rate = read_audio(source)
        except PartitaError as error:
            leave_out(str(error))
            continue
        if mono:
            audio = audio.mean(0, keepdim=True)
        if sample_rate is not None:
            audio, rate = resample(audio, rate, sample_rate), sample_rate
        if audio.shape[-1] == 0:
            leave_out(f"{source_name(source)}: holds no samples at {rate} Hz")
            continue
        found = True
        name = row_name(row, index)
        rest = {key: value for key, value in row.items() if key not in ("audio", "file_name")}
        yield Clip(index, name, audio, rate, default_layout(audio.shape[0]), rest)
    if not found:
        first = f"; the first: {failed[0]}" if failed else ""
        raise PartitaError(f"none of {len(dataset)} files can be read{first}")
