"""Reading audio files, and writing them atomically."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from partita_core import PartitaError, atomic_write
from torch import Tensor

from .coded import BLOCK_FRAMES
from .reader import AudioFile
from .source import AudioInfo, AudioSource, reason
from .source import source_name as source_name

SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav")

_SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_24"}


def audio_info(source: AudioSource) -> AudioInfo:
    """Properties of an audio file.

    Raises:
        PartitaError: as `AudioFile`.
    """
    with AudioFile(source) as file:
        return file.info


def read_audio(source: AudioSource, start: int = 0, frames: int | None = None) -> tuple[Tensor, int]:
    """Read audio.

    Args:
        source: the file.
        start: first sample.
        frames: samples to read; None for all that follow.

    Returns:
        Float32 audio `(channels, frames)`, full scale is 1, and its sample rate in Hz.

    Raises:
        PartitaError: as `AudioFile` and `AudioFile.read`.
    """
    with AudioFile(source) as file:
        return file.read(start, frames), file.info.sample_rate


def read_blocks(source: AudioSource, block_frames: int = BLOCK_FRAMES) -> Iterator[Tensor]:
    """Iterate over audio in blocks `(channels, at most block_frames)`; errors as `read_audio`."""
    with AudioFile(source) as file:
        yield from file.blocks(block_frames)


def write_audio(
    path: str | os.PathLike, audio: Tensor | Iterable[Tensor], sample_rate: int, *, subtype: str | None = None
) -> int:
    """Write audio atomically (see `partita_core.outputs`).

    Args:
        path: file to write; the suffix determines the format.
        audio: `(channels, samples)`, or `(samples,)` for mono; or an iterable of such pieces, which are written one by
            one. Integer formats clip it to [-1, 1].
        sample_rate: sample rate in Hz.
        subtype: libsndfile's name of the coding. By default, .wav is 32-bit float, so that nothing is clipped, and
            .flac 24 bit; "PCM_16" is the common 16 bit.

    Returns:
        Number of samples written.

    Raises:
        PartitaError: the format is unknown, the folder is missing or not writable, or the audio has no samples, more
            than two channels, or NaN or infinite samples.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or suffix == ".opus":
        raise PartitaError(
            f"{path}: the suffix {suffix!r} is not an audio format that can be written; use .wav or .flac"
        )
    if path.is_dir():
        raise PartitaError(f"{path}: is a folder; choose a file")
    if not path.parent.is_dir():
        raise PartitaError(f"{path}: the folder {path.parent} does not exist")
    subtype, file, written = subtype or _SUBTYPES.get(suffix), None, 0
    with atomic_write(path, sync=False) as aside:
        try:
            for piece in [audio] if isinstance(audio, Tensor) else (piece for piece in audio if piece.numel()):
                samples = _writable(path, piece)
                with _writing(path):
                    if file is None:
                        file = _Writer(aside, sample_rate, samples.shape[0], subtype)
                    # libsndfile crashes if a minute of Vorbis is written at once.
                    for start in range(0, samples.shape[1], BLOCK_FRAMES):
                        file.write(samples[:, start : start + BLOCK_FRAMES].T)
                written += samples.shape[1]
            if file is None:
                raise PartitaError(f"{path}: there is no audio to write")
            with _writing(path):
                file.close()
        finally:
            with suppress(OSError, soundfile.LibsndfileError):
                if file is not None:
                    file.close()
    return written


class _Sink(FileIO):
    """A file that keeps the error of the system, which libsndfile does not pass on."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`; after an error, write nothing."""
        left = memoryview(data)
        while len(left) and self.error is None:
            try:
                left = left[super().write(left) or 0 :]
            except OSError as error:
                self.error = error
        return len(data) - len(left)


class _Writer(soundfile.SoundFile):
    """An audio file for writing that raises the errors of the system, such as that of a full disk."""

    def __init__(self, path: Path, sample_rate: int, channels: int, subtype: str | None) -> None:
        self._sink = _Sink(path, "w+")
        try:
            super().__init__(self._sink, "w", sample_rate, channels, subtype=subtype)
        except BaseException:
            self._sink.close()
            raise

    def write(self, data: np.ndarray) -> None:
        """Write samples `(samples, channels)`."""
        with self._errors():
            super().write(data)

    def close(self) -> None:
        """Write the remaining data, and close the file."""
        if self.closed:
            return
        try:
            with self._errors():
                super().close()
        finally:
            self._sink.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError):
            if self._sink.error is None:
                raise
        if self._sink.error is not None:
            raise OSError(self._sink.error.strerror)


def _writable(path: Path, audio: Tensor) -> np.ndarray:
    samples = np.atleast_2d(audio.detach().cpu().float().numpy())
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= 2 or samples.shape[1] == 0:
        raise PartitaError(f"{path}: audio of shape {tuple(audio.shape)} cannot be written; use (1 or 2, samples)")
    if not np.isfinite(samples).all():
        raise PartitaError(f"{path}: the audio to write holds NaN or infinite samples")
    return samples


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert errors of writing a file to a `PartitaError`."""
    try:
        yield
    except (OSError, ValueError, TypeError, soundfile.LibsndfileError) as error:
        raise PartitaError(f"{path}: cannot be written ({reason(error)})") from None
