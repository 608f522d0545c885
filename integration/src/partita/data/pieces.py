"""Random excerpts of the files of a data set, avoiding silence."""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from partita_core import PartitaError, default_layout, hashed_seed
from torch import Generator, Tensor

from .audio.files import AudioInfo, AudioSource, audio_info
from .audio.resampling import read_resampled, resampled_length
from .clips import Clip
from .datasets import row_name, row_source

if TYPE_CHECKING:
    from datasets import Dataset

# Positions in a file that are tried to find an excerpt that is not silent.
_MAX_ATTEMPTS = 32


def is_silent(audio: Tensor, silence_db: float | None) -> bool:
    """True for audio `(channels, samples)` with an RMS below a level in dB of full scale; never for a level of None.

    The mean is subtracted, because a constant offset is inaudible.
    """
    if silence_db is None:
        return False
    return float(audio.double().var(-1, correction=0).mean()) < 10 ** (silence_db / 10)


def random_piece(
    dataset: "Dataset",
    index: int,
    *,
    samples: int,
    sample_rate: int,
    mono: bool,
    silence_db: float | None,
    key: tuple[int | str, ...],
) -> Clip:
    """A random excerpt of a file that is not silent; a silent one if all of several positions are silent.

    Only the excerpt is decoded.

    Args:
        dataset: data set of audio, as `open_dataset` returns it.
        index: row of the file.
        samples: length of the excerpt; a shorter file is used entirely.
        sample_rate: sample rate of the excerpt in Hz.
        mono: average the channels of stereo files, as for a mono model.
        silence_db: level in dB of full scale below which an excerpt is silent; None accepts all.
        key: seed of the position.

    Raises:
        PartitaError: the file cannot be read.
    """
    row: Any = dataset[index]
    source = row_source(row, index)
    info, generator = audio_info(source), Generator().manual_seed(hashed_seed(*key, index))
    length = resampled_length(info.frames, info.sample_rate, sample_rate)
    if length == 0:
        raise PartitaError(f"{row_name(row, index)}: holds no samples at {sample_rate} Hz")
    samples = min(samples, length)
    audio = _read(source, info, generator, length, samples, sample_rate, mono)
    for _ in range(_MAX_ATTEMPTS - 1 if samples < length else 0):
        if not is_silent(audio, silence_db):
            break
        audio = _read(source, info, generator, length, samples, sample_rate, mono)
    rest = {name: value for name, value in row.items() if name not in ("audio", "file_name")}
    return Clip(index, row_name(row, index), audio, sample_rate, default_layout(audio.shape[0]), rest)


def random_pieces(
    dataset: "Dataset",
    *,
    seconds: float,
    samples: int,
    sample_rate: int,
    mono: bool,
    silence_db: float | None,
    seed: int,
) -> Iterator[Clip]:
    """Random excerpts of `samples` samples, until they last `seconds` in total or as long as the files together.

    One excerpt of every file, in random order, then another of every file. Files that cannot be read are left out, and
    so are silent excerpts, unless all are silent. The other arguments are those of `random_piece`.
    """
    wanted, held, taken, found = round(seconds * sample_rate), 0, 0, False
    for epoch in count():
        order = torch.randperm(len(dataset), generator=Generator().manual_seed(hashed_seed(seed, "pieces", epoch)))
        before = taken
        for index in order.tolist():
            if taken >= wanted:
                return
            try:
                info = audio_info(row_source(dataset[index], index))  # pyright: ignore[reportArgumentType]
                piece = random_piece(
                    dataset,
                    index,
                    samples=samples,
                    sample_rate=sample_rate,
                    mono=mono,
                    silence_db=silence_db,
                    key=(seed, "piece", epoch),
                )
            except PartitaError:
                continue
            if epoch == 0:
                held += resampled_length(info.frames, info.sample_rate, sample_rate)
            if is_silent(piece.audio, silence_db):
                continue
            taken, found = taken + piece.audio.shape[-1], True
            yield piece
        wanted = min(wanted, held)
        if taken == before:  # further epochs yield nothing either
            if found or silence_db is None:
                return
            silence_db = None


def _read(
    source: AudioSource, info: AudioInfo, generator: Generator, length: int, samples: int, rate: int, mono: bool
) -> Tensor:
    start = int(torch.randint(length - samples + 1, (), generator=generator))
    audio = read_resampled(source, info, start, samples, rate)
    return audio.mean(0, keepdim=True) if mono else audio
