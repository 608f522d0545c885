"""Sources of audio (paths and bytes), their properties, and their names in error messages."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import soundfile

AudioSource = str | os.PathLike | Mapping | None
"""A path, or a value of an undecoded `datasets` audio column: `{"path": ..., "bytes": ...}`, or None for no audio."""


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

    Attributes:
        sample_rate: sample rate in Hz.
        channels: 1 or 2.
        frames: samples per channel, exactly as many as are read.
        format: container and coding, as in "FLAC/PCM_16".
    """

    sample_rate: int
    channels: int
    frames: int
    format: str

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.frames / self.sample_rate


def source_name(source: AudioSource) -> str:
    """The name of `source` in messages."""
    if source is None or isinstance(source, Mapping):
        return (source or {}).get("path") or "audio without a name"
    return os.fspath(source)


def reason(error: Exception) -> str:
    """The message of libsndfile or of the system, in one line."""
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).removeprefix("Error : ").rstrip(".")
