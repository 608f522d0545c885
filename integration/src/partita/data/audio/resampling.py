"""Resampling with soxr: tensors, files read in blocks, and crops of files."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from .files import BLOCK_FRAMES, AudioInfo, AudioSource, audio_info, read_audio, read_blocks

# Samples at the lower rate, to either side, that a resampled one depends on, with some to spare.
_MARGIN = 256


def resampled_length(samples: int, source_rate: int, target_rate: int) -> int:
    """Number of samples that `resample` returns: samples * target_rate / source_rate, rounded, halves down."""
    return -((source_rate - 2 * samples * target_rate) // (2 * source_rate))


def resample(audio: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample `(channels, samples)` to `(channels, resampled_length(...))`, in its own dtype (float32 or float64)."""
    if source_rate == target_rate or audio.shape[-1] == 0:
        return audio
    return _channels_first(soxr.resample(_frames_first(audio), source_rate, target_rate))


def resample_some(audio: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Like `resample`, but return at least one sample of non-empty audio, a zero if a lower rate leaves none."""
    resampled = resample(audio, source_rate, target_rate)
    return resampled if resampled.shape[-1] or not audio.shape[-1] else F.pad(resampled, (0, 1))


@dataclass(frozen=True)
class AudioReader:
    """Iterable over an audio file in blocks, at any sample rate, in constant memory.

    Iterating yields float32 `(channels, n)` with n > 0, `samples` in total; the concatenated blocks equal the output of
    `resample` for the entire file. Every iteration starts at the beginning.

    Attributes:
        source: the file.
        sample_rate: sample rate of the blocks in Hz; None for the file's own.
        block_frames: samples of the file that are read at a time.
    """

    source: AudioSource
    sample_rate: int | None = None
    block_frames: int = BLOCK_FRAMES

    @property
    def info(self) -> AudioInfo:
        """Properties of the file; errors as `AudioFile`."""
        return audio_info(self.source)

    @property
    def samples(self) -> int:
        """Samples per channel that an iteration yields."""
        info = self.info
        return resampled_length(info.frames, info.sample_rate, self.sample_rate or info.sample_rate)

    def __iter__(self) -> Iterator[Tensor]:
        info = self.info
        if self.sample_rate in (None, info.sample_rate):
            yield from read_blocks(self.source, self.block_frames)
            return
        stream = soxr.ResampleStream(info.sample_rate, self.sample_rate, info.channels, dtype="float32")
        left = info.frames
        for block in read_blocks(self.source, self.block_frames):
            left -= block.shape[-1]
            out = stream.resample_chunk(_frames_first(block), last=left == 0)
            if len(out):
                yield _channels_first(out)


def read_resampled(source: AudioSource, info: AudioInfo, start: int, frames: int, sample_rate: int) -> Tensor:
    """Read a crop of a file at another sample rate, decoding only what the crop depends on.

    Args:
        source: the file.
        info: its properties.
        start: first sample of the crop, at `sample_rate`.
        frames: samples of the crop, at `sample_rate`; start + frames must not exceed the file's resampled length.
        sample_rate: sample rate of the crop in Hz.

    Returns:
        Float32 `(channels, frames)`, equal to that part of the entire resampled file, up to rounding.
    """
    if sample_rate == info.sample_rate:
        return read_audio(source, start, frames)[0]
    # The part to read starts at a time at which both rates have a sample.
    common = gcd(info.sample_rate, sample_rate)
    source_step, target_step = info.sample_rate // common, sample_rate // common
    margin = -(-_MARGIN * max(info.sample_rate, sample_rate) // sample_rate)
    first = max(0, start * source_step // target_step - margin) // source_step
    end = -(-(start + frames) * source_step // target_step) + margin
    begin = first * source_step
    part, _ = read_audio(source, begin, min(end, info.frames) - begin)
    offset = start - first * target_step
    return resample(part, info.sample_rate, sample_rate)[:, offset : offset + frames]


def _frames_first(audio: Tensor) -> np.ndarray:
    # Copies even a single sample: numpy before 2 keeps its strides, which soxr takes for not contiguous.
    return audio.T.clone(memory_format=torch.contiguous_format).numpy()


def _channels_first(audio: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(audio.T))
