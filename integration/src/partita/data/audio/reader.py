"""Audio files, open for reading: their exact length, and any part of them, the same in one go, in blocks or alone."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from threading import Lock
from typing import BinaryIO, Generic, Protocol, TypeVar

import numpy as np
import soundfile
import torch
from partita_core import PartitaError
from torch import Tensor

from .mpeg import MPEGAudio, begins, tag_size
from .ogg import OggAudio, is_readable
from .segments import DamagedError, Decoder
from .truncation import samples_at, truncation_reason
from .unsupported import check_beginning, check_path

AudioSource = str | os.PathLike | Mapping | None
"""A path, or what a `datasets` audio column holds undecoded: `{"path": ..., "bytes": ...}`, or None, of no audio."""

Value = TypeVar("Value")

BLOCK_FRAMES = 1 << 16

# A header that says otherwise is damaged; at one sample a second, a small file would be resampled to a huge one.
_SLOWEST, _FASTEST = 1000, 1_000_000
_LONGEST = 1 << 40

# Full scale is 1. There are float files in the scale of 32-bit integers; what is beyond overflows in a model.
MAX_AMPLITUDE = 2.0**31

# What libsndfile gives for the length of a stream whose header tells none.
_UNKNOWN = 2**63 - 1

# Codings in which its seek is exact: each sample, or each block of samples, is coded for itself.
_SEEKABLE = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "ALAC_")


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

    Attributes:
        sample_rate: samples per second.
        channels: 1 or 2.
        frames: samples of each channel, exactly as many as are read.
        format: the container and coding, as "FLAC/PCM_16".
    """

    sample_rate: int
    channels: int
    frames: int
    format: str

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.sample_rate


class _Stream(Protocol):
    """Coded audio of which any part can be decoded; the attributes are those of `AudioInfo`."""

    sample_rate: int
    channels: int
    frames: int
    format: str

    def open(self, start: int, stop: int) -> tuple[Decoder, int]:
        """A decoder of samples `start` to `stop`, and how many samples it returns in front of them."""
        ...


class _Plain:
    """A file that libsndfile decodes by itself: from anywhere if a seek in its coding is exact, else from its start."""

    def __init__(self, reopen: Callable[[], BinaryIO], key: tuple | None) -> None:
        self._reopen = reopen
        with Decoder(reopen()) as decoder:
            self.sample_rate, self.channels = decoder.samplerate, decoder.channels
            self.format, self.frames = f"{decoder.format}/{decoder.subtype}", decoder.frames
            exact = decoder.format == "FLAC" or decoder.subtype.startswith(_SEEKABLE)
            self._seeks = exact and decoder.can_seek
            if decoder.frames == _UNKNOWN or "MPEG" in decoder.subtype:
                known = _lengths.get(key)
                self.frames = decoder.discard(_UNKNOWN, BLOCK_FRAMES) if known is None else known
                _lengths.put(key, self.frames)

    def open(self, start: int, stop: int) -> tuple[Decoder, int]:
        decoder = Decoder(self._reopen())
        if not self._seeks:
            return decoder, start
        if start:
            decoder.seek(start)
        return decoder, 0


class _Recent(Generic[Value]):
    """The values of the files that were added last, by what identifies a file and its contents; for all threads.

    Args:
        budget: limit of the sum of the costs.
        cost: cost of a value.
    """

    def __init__(self, budget: int, cost: Callable[[Value], int]) -> None:
        self._values: dict[tuple, Value] = {}
        self._budget, self._cost, self._spent, self._lock = budget, cost, 0, Lock()

    def get(self, key: tuple | None) -> Value | None:
        return None if key is None else self._values.get(key)

    def put(self, key: tuple | None, value: Value) -> None:
        if key is not None:
            with self._lock:
                if (before := self._values.pop(key, None)) is not None:
                    self._spent -= self._cost(before)
                self._values[key] = value
                self._spent += self._cost(value)
                while self._spent > self._budget and len(self._values) > 1:
                    self._spent -= self._cost(self._values.pop(next(iter(self._values))))


# Counting the frames of a file takes longer than decoding a crop of it: some hundred hours are remembered.
_indices: _Recent[MPEGAudio | OggAudio] = _Recent(64 << 20, lambda index: index.nbytes)
_lengths: _Recent[int] = _Recent(4096, lambda _: 1)


class AudioFile:
    """An audio file that is open for reading; a context manager.

    What is read of it does not depend on how: in one go, in blocks, or alone from the middle, samples are the same.

    Args:
        source: the file.

    Attributes:
        name: of the file, for messages.
        info: its properties.

    Raises:
        PartitaError: there is nothing readable, or not all of it is there.
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
        """Read a part, decoding what it depends on and no more.

        Args:
            start: first sample to read.
            frames: samples to read; None for all that follow.

        Returns:
            Float32 audio `(channels, frames)`, full scale is 1.

        Raises:
            PartitaError: the file is damaged or shorter than the caller says, or holds samples that are no audio:
                NaN, infinite or beyond `MAX_AMPLITUDE`.
        """
        wanted = self.info.frames - start if frames is None else frames
        if start < 0 or wanted < 0 or start + wanted > self.info.frames:
            raise PartitaError(f"{self.name}: has {self.info.frames} samples, not {start} to {start + wanted}")
        with self._decoding(start, start + wanted) as decoder:
            return self._take(decoder, wanted)

    def blocks(self, block_frames: int = BLOCK_FRAMES) -> Iterator[Tensor]:
        """Read it from start to end in blocks `(channels, at most block_frames)`; errors as `read`."""
        frames = self.info.frames
        with self._decoding(0, frames) as decoder:
            for start in range(0, frames, block_frames):
                yield self._take(decoder, min(block_frames, frames - start))

    def _open(self) -> None:
        try:
            missing = truncation_reason(self._file)
            if not missing:
                self._stream, missing = self._look()
        except (DamagedError, soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
            raise PartitaError(f"{self.name}: is not audio that can be read ({reason(error)})") from None
        if missing:
            raise PartitaError(f"{self.name}: is truncated ({missing})")
        stream = self._stream
        self.info = AudioInfo(stream.sample_rate, stream.channels, stream.frames, stream.format)
        _check_info(self.name, self.info)

    def _look(self) -> tuple[_Stream, str | None]:
        """The stream, and the part of it that is missing."""
        file, size, key = self._file, self._file.seek(0, os.SEEK_END), None
        if not isinstance(file, BytesIO):
            status = os.fstat(file.fileno())
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = _indices.get(key)
        if known is not None:
            return known.on(file), None
        begin, head = 0, _read(file, 0)
        while tag := tag_size(head):
            begin, head = begin + tag, _read(file, begin + tag)
        check_beginning(head)
        if begins(head):
            found = MPEGAudio(file, begin, size)
        elif is_readable(head):
            found = OggAudio(file, size)
        else:
            plain = _Plain(self._reopen, key)
            place = samples_at(file) if "MPEG" in plain.format else None
            if place is None:
                return plain, None
            found = MPEGAudio(file, place[0], min(sum(place), size))
            found.format = plain.format
        if found.cut is None:
            _indices.put(key, found)
        return found, found.cut

    @contextmanager
    def _decoding(self, start: int, stop: int) -> Iterator[Decoder]:
        """A decoder whose next sample is `start`; gives its errors the name of the file."""
        try:
            decoder, skip = self._stream.open(start, stop)
            with decoder:
                if decoder.samplerate != self.info.sample_rate or decoder.channels != self.info.channels:
                    raise DamagedError("it is of another rate, or has other channels, than its beginning says")
                missing = skip - decoder.discard(skip, BLOCK_FRAMES)
                if missing:
                    raise DamagedError(f"{missing} samples in front of sample {start} are missing")
                yield decoder
        except (DamagedError, soundfile.SoundFileError, OSError, MemoryError) as error:
            raise PartitaError(f"{self.name}: is damaged ({reason(error)})") from None

    def _take(self, decoder: Decoder, frames: int) -> Tensor:
        # Memory is taken as it is filled: a header may promise more than any machine has.
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
                raise PartitaError(
                    f"{self.name}: holds a sample of {peak:.3g}, and up to {MAX_AMPLITUDE:.3g} is read; scale it to 1"
                )
        return torch.from_numpy(np.ascontiguousarray(block.T))


def source_name(source: AudioSource) -> str:
    """The name of `source` in messages."""
    if source is None or isinstance(source, Mapping):
        return (source or {}).get("path") or "audio without a name"
    return os.fspath(source)


def reason(error: Exception) -> str:
    """The message of libsndfile or of the system, in one line."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".")


def _read(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(27 + 255 + 16)


def _check_info(name: str, info: AudioInfo) -> None:
    """Raise an error for properties that audio does not have, or that models do not take."""
    if not _SLOWEST <= info.sample_rate <= _FASTEST:
        rates = f"{_SLOWEST} to {_FASTEST} Hz are read"
        raise PartitaError(f"{name}: has {info.sample_rate} samples a second, which is no rate of audio; {rates}")
    if info.channels > 2:
        raise PartitaError(f"{name}: has {info.channels} channels; mono (1) and stereo (2) are supported")
    if info.frames <= 0:
        raise PartitaError(f"{name}: holds no samples")
    if info.frames > _LONGEST:
        raise PartitaError(f"{name}: claims to be {info.frames} samples long; its header is damaged")
