"""Whole files, as evaluation and encoding take them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from partita_core import ChannelLayout, PartitaError, default_layout
from torch import Tensor

from .audio.files import read_audio, source_name
from .audio.resampling import resample
from .datasets import row_name, row_source
from .notes import note

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, eq=False)
class Clip:
    """A whole file.

    Attributes:
        index: its row in the data set.
        name: its `file_name`.
        audio: `(1 or 2, samples)` float32.
        sample_rate: of `audio`.
        layout: mono or stereo.
        row: the other columns of its row.
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
    """The files of a data set, one after the other and in its order.

    Args:
        dataset: as `open_dataset` returns it.
        sample_rate: samples a second wanted; None for each file's own.
        mono: whether stereo is folded to the mean of its channels, as for a model that takes no other.
        broken: gets "name: reason" of each file that cannot be read and is left out; None notes these.

    Raises:
        PartitaError: the data set holds no audio; after the last row, if none could be read.
    """
    if "audio" not in dataset.column_names:
        raise PartitaError("the data set holds latents, not audio; name the one that they were made of")
    found, failed = False, []

    def leave_out(reason: str) -> None:
        failed.append(reason)
        if broken is None:
            note(f"left out: {reason}")
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
