"""Audio files: what they are, reading any part of them, and writing them whole or not at all."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch
from partita_core import PartitaError, written_aside
from torch import Tensor

from .whole import what_is_missing

AudioSource = str | os.PathLike | Mapping | None
"""A path, or what a `datasets` audio column holds undecoded: `{"path": ..., "bytes": ...}`, or None, of no audio."""

SUFFIXES = (".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav")

BLOCK_FRAMES = 1 << 16

# A header that says otherwise is damaged; at one sample a second, a small file would be resampled to a huge one.
_SLOWEST, _FASTEST = 1000, 1_000_000
_LONGEST = 1 << 40

_SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_24"}


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        sample_rate: samples a second.
        channels: 1 or 2.
        frames: samples of each channel.
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


def source_name(source: AudioSource) -> str:
    """What to call `source` in messages."""
    if source is None or isinstance(source, Mapping):
        return (source or {}).get("path") or "audio without a name"
    return os.fspath(source)


@contextmanager
def open_audio(source: AudioSource) -> Iterator[soundfile.SoundFile]:
    """Opens audio for reading, at its first sample.

    Raises:
        PartitaError: there is nothing readable, or not all of it is there; also for what libsndfile reports while the
            file is in use.
    """
    name = source_name(source)
    data = source.get("bytes") if isinstance(source, Mapping) else None
    if data is None:
        _refuse_path(name)
    elif len(data) == 0:
        raise PartitaError(f"{name}: is empty (0 bytes)")
    try:
        with open(name, "rb") if data is None else BytesIO(data) as raw:
            missing = what_is_missing(raw)
        if missing:
            raise PartitaError(f"{name}: is truncated ({missing})")
        file = soundfile.SoundFile(name if data is None else BytesIO(data))
    except PartitaError:
        raise
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise PartitaError(f"{name}: is not audio that can be read ({_reason(error)})") from None
    with file:
        if not _SLOWEST <= file.samplerate <= _FASTEST:
            rates = f"{_SLOWEST} to {_FASTEST} Hz are read"
            raise PartitaError(f"{name}: has {file.samplerate} samples a second, which is no rate of audio; {rates}")
        if file.channels > 2:
            raise PartitaError(f"{name}: has {file.channels} channels; mono (1) and stereo (2) are supported")
        if file.frames <= 0:
            raise PartitaError(f"{name}: holds no samples")
        if file.frames > _LONGEST:
            raise PartitaError(f"{name}: claims to be {file.frames} samples long; its header is damaged")
        try:
            yield file
        except (soundfile.SoundFileError, MemoryError) as error:
            raise PartitaError(f"{name}: is damaged ({_reason(error)})") from None


def audio_info(source: AudioSource) -> AudioInfo:
    """Reads the header of an audio file.

    Raises:
        PartitaError: as `open_audio`.
    """
    with open_audio(source) as file:
        return _info(file)


def read_audio(source: AudioSource, start: int = 0, frames: int | None = None) -> tuple[Tensor, int]:
    """Reads audio, seeking to `start` instead of decoding what comes before.

    In Ogg Vorbis a seek into the last page, a few hundred milliseconds, may land some samples beside the mark.

    Args:
        source: the file.
        start: first sample to read.
        frames: samples to read; None for all that follow.

    Returns:
        Float32 audio `(channels, frames)`, full scale is 1, and its sample rate.

    Raises:
        PartitaError: the file cannot be read, is shorter than its header or the caller says, or holds NaN or
            infinite samples.
    """
    name = source_name(source)
    with open_audio(source) as file:
        wanted = file.frames - start if frames is None else frames
        if start < 0 or wanted < 0 or start + wanted > file.frames:
            raise PartitaError(f"{name}: has {file.frames} samples, not {start} to {start + wanted}")
        if start:
            file.seek(start)
        audio = _read_block(file, wanted, name)
        return audio, file.samplerate


def read_blocks(source: AudioSource, block_frames: int = BLOCK_FRAMES) -> Iterator[Tensor]:
    """Reads audio from start to end in blocks `(channels, at most block_frames)`; errors as `read_audio`."""
    name = source_name(source)
    with open_audio(source) as file:
        for start in range(0, file.frames, block_frames):
            yield _read_block(file, min(block_frames, file.frames - start), name)


def write_audio(
    path: str | os.PathLike, audio: Tensor | Iterable[Tensor], sample_rate: int, *, subtype: str | None = None
) -> int:
    """Write audio, whole or not at all; see `partita_core.outputs`.

    Args:
        path: where; the suffix is the format.
        audio: `(channels, samples)`, or `(samples,)` for mono; or pieces of it in order, of which one is held at a
            time. Integer formats clip it to [-1, 1].
        sample_rate: samples a second.
        subtype: libsndfile's name of the coding. By default .wav is 32-bit float, so that nothing is clipped, and
            .flac 24 bit; "PCM_16" is the common 16 bit.

    Returns:
        How many samples were written.

    Raises:
        PartitaError: the format is unknown, the folder is missing or not writable, the audio has no samples, more
            than two channels, or NaN or infinite samples.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or suffix == ".opus":
        raise PartitaError(f"{path}: the suffix names no audio format that can be written; use .wav or .flac")
    if path.is_dir():
        raise PartitaError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise PartitaError(f"{path}: the folder {path.parent} does not exist")
    subtype, file, written = subtype or _SUBTYPES.get(suffix), None, 0
    with written_aside(path, sync=False) as aside:
        try:
            for piece in [audio] if isinstance(audio, Tensor) else (piece for piece in audio if piece.numel()):
                samples = _writable(path, piece)
                with _writing(path):
                    if file is None:
                        file = soundfile.SoundFile(aside, "w", sample_rate, samples.shape[0], subtype=subtype)
                    # libsndfile crashes on a minute of Vorbis handed over at once
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


def _writable(path: Path, audio: Tensor) -> np.ndarray:
    samples = np.atleast_2d(audio.detach().cpu().float().numpy())
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= 2 or samples.shape[1] == 0:
        raise PartitaError(f"{path}: audio of shape {tuple(audio.shape)} cannot be written; (1 or 2, samples) can")
    if not np.isfinite(samples).all():
        raise PartitaError(f"{path}: the audio to write holds NaN or infinite samples")
    return samples


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says in one line why a file cannot be written."""
    try:
        yield
    except (OSError, ValueError, TypeError, soundfile.LibsndfileError) as error:
        raise PartitaError(f"{path}: cannot be written ({_reason(error)})") from None


def _info(file: soundfile.SoundFile) -> AudioInfo:
    return AudioInfo(file.samplerate, file.channels, file.frames, f"{file.format}/{file.subtype}")


def _read_block(file: soundfile.SoundFile, frames: int, name: str) -> Tensor:
    # Memory is taken as it is filled: a header may promise more than any machine has.
    block = np.empty((frames, file.channels), dtype=np.float32)
    for start in range(0, frames, BLOCK_FRAMES):
        part = file.read(out=block[start : start + BLOCK_FRAMES])
        if len(part) < min(BLOCK_FRAMES, frames - start):
            missing = frames - start - len(part)
            raise PartitaError(f"{name}: is truncated ({missing} of {file.frames} samples are missing)")
        if not np.isfinite(part).all():
            raise PartitaError(f"{name}: holds NaN or infinite samples")
    return torch.from_numpy(np.ascontiguousarray(block.T))


def _refuse_path(name: str) -> None:
    """Says what libsndfile would call a system error."""
    if os.path.isdir(name):
        raise PartitaError(f"{name}: is a folder, not an audio file")
    if not os.path.exists(name):
        raise PartitaError(f"{name}: no such file")
    if not os.access(name, os.R_OK):
        raise PartitaError(f"{name}: may not be read (permission denied)")
    if os.path.getsize(name) == 0:
        raise PartitaError(f"{name}: is empty (0 bytes)")


def _reason(error: Exception) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".")
