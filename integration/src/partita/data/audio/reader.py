"""Reading audio files sample-exactly: as a whole, in blocks, or any part, with the same samples each way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from partita_core import PartitaError
from torch import Tensor

from .coded import BLOCK_FRAMES, open_coded
from .segments import DamagedError, Decoder
from .source import AudioInfo, AudioSource, reason, source_name
from .truncation import truncation_reason
from .unsupported import check_path

# A header beyond these is damaged; at a rate of 1 Hz, resampling would turn a small file into a huge one.
_MIN_RATE, _MAX_RATE = 1000, 1_000_000
_MAX_FRAMES = 1 << 40

# Full scale is 1, but some float files are scaled like 32-bit integers; larger values overflow in a model.
MAX_AMPLITUDE = 2.0**31


class AudioFile:
    """An open audio file; a context manager.

    Samples are the same whether the file is read as a whole, in blocks, or from the middle.

    Args:
        source: the file.

    Attributes:
        name: name of the file in messages.
        info: its properties.

    Raises:
        PartitaError: the file is not readable audio, or it is truncated.
    """

    def __init__(self, source: AudioSource) -> None:
        self.name = source_name(source)
        data = source.get("bytes") if isinstance(source, Mapping) else None
        if data is None:
            check_path(self.name)
        elif len(data) == 0:
            raise PartitaError(f"{self.name}: is empty (0 bytes)")
        self._reopen: Callable[[], BinaryIO] = partial(BytesIO, data) if data else partial(open, self.name, "rb")
        try:
            self._file = self._reopen()
        except OSError as error:
            raise PartitaError(f"{self.name}: cannot be opened ({reason(error)})") from None
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, start: int = 0, frames: int | None = None) -> Tensor:
        """Read a part of the file, decoding only what it depends on.

        Args:
            start: first sample.
            frames: samples to read; None for all that follow.

        Returns:
            Float32 audio `(channels, frames)`; full scale is 1.

        Raises:
            PartitaError: the file is damaged, is shorter than requested, or has samples that are NaN, infinite or
                beyond `MAX_AMPLITUDE`.
        """
        wanted = self.info.frames - start if frames is None else frames
        if start < 0 or wanted < 0 or start + wanted > self.info.frames:
            raise PartitaError(f"{self.name}: has {self.info.frames} samples, not {start} to {start + wanted}")
        with self._decoding(start, start + wanted) as decoder:
            return self._take(decoder, wanted)

    def blocks(self, block_frames: int = BLOCK_FRAMES) -> Iterator[Tensor]:
        """Iterate over the file in blocks `(channels, at most block_frames)`; errors as `read`."""
        frames = self.info.frames
        with self._decoding(0, frames) as decoder:
            for start in range(0, frames, block_frames):
                yield self._take(decoder, min(block_frames, frames - start))

    def _open(self) -> None:
        try:
            missing = truncation_reason(self._file)
            if not missing:
                self._coded, missing = open_coded(self._file, self._reopen)
        except (DamagedError, soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
            raise PartitaError(f"{self.name}: is not audio that can be read ({reason(error)})") from None
        if missing:
            raise PartitaError(f"{self.name}: is truncated ({missing})")
        coded = self._coded
        self.info = AudioInfo(coded.sample_rate, coded.channels, coded.frames, coded.format)
        _check_info(self.name, self.info)

    @contextmanager
    def _decoding(self, start: int, stop: int) -> Iterator[Decoder]:
        """A decoder whose next sample is `start`; its errors get the name of the file."""
        try:
            decoder, skip = self._coded.open(start, stop)
            with decoder:
                found, expected = (decoder.samplerate, decoder.channels), (self.info.sample_rate, self.info.channels)
                if found != expected:
                    raise DamagedError(f"its rate and channels change from {expected} to {found}")
                missing = skip - decoder.discard(skip, BLOCK_FRAMES)
                if missing:
                    raise DamagedError(f"{missing} samples before sample {start} are missing")
                yield decoder
        except (DamagedError, soundfile.SoundFileError, OSError, MemoryError) as error:
            raise PartitaError(f"{self.name}: is damaged ({reason(error)})") from None

    def _take(self, decoder: Decoder, frames: int) -> Tensor:
        # Pages are allocated as they are filled, so an impossible length in a header does not exhaust the memory.
        block = np.empty((frames, decoder.channels), dtype=np.float32)
        for start in range(0, frames, BLOCK_FRAMES):
            part = block[start : start + BLOCK_FRAMES]
            count = decoder.fill(part)
            if count < len(part):
                missing = frames - start - count
                raise PartitaError(f"{self.name}: is truncated ({missing} of {self.info.frames} samples are missing)")
            peak = float(np.abs(part).max(initial=0))
            if not np.isfinite(peak):
                raise PartitaError(f"{self.name}: holds NaN or infinite samples")
            if peak > MAX_AMPLITUDE:
                limit = f"the maximum is {MAX_AMPLITUDE:.3g}; scale the audio to a peak of 1"
                raise PartitaError(f"{self.name}: holds a sample of {peak:.3g}, but {limit}")
        return torch.from_numpy(np.ascontiguousarray(block.T))


def _check_info(name: str, info: AudioInfo) -> None:
    """Raise an error for properties that are implausible or unsupported."""
    if not _MIN_RATE <= info.sample_rate <= _MAX_RATE:
        limits = f"rates from {_MIN_RATE} to {_MAX_RATE} Hz are supported"
        raise PartitaError(f"{name}: has a sample rate of {info.sample_rate} Hz; {limits}")
    if info.channels > 2:
        raise PartitaError(f"{name}: has {info.channels} channels; mono (1) and stereo (2) are supported")
    if info.frames <= 0:
        raise PartitaError(f"{name}: holds no samples")
    if info.frames > _MAX_FRAMES:
        raise PartitaError(f"{name}: has a length of {info.frames} samples in its header, which is damaged")
