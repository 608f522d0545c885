"""Training items and batches: their fields, stacking items to a batch, and moving a batch to a device."""

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor


class SkippedFile(str):
    """A file that was left out, as "name: reason".

    The reason may name a position in the file, which differs from crop to crop; files are therefore counted by `file`.

    Attributes:
        file: name of the row, or of the shard.
    """

    file: str

    def __new__(cls, reason: object, file: str = "") -> "SkippedFile":
        """Make one from a `PartitaError` or its text; unpickling passes the text only and sets `file` afterwards."""
        skipped = super().__new__(cls, reason)
        skipped.file = file
        return skipped


class Item(TypedDict, total=False):
    """One crop, of audio or of stored latents.

    Attributes:
        audio: `(channels, samples)` float32, in the channel layout of the network.
        latents: `(dim, frames * K)` float32, zero past the end.
        codes: `(num_quantizers, frames * K)` int64, -1 past the end.
        audio_lengths: samples before zero padding.
        layout: channel layout of the audio that conditions the network.
        target_layout: channel layout requested from the decoder; crops of audio only.
        columns: values of `DataConfig.columns`; absent if there are none.
        index: row in the data set; of a stream, row in its shard.
        file_name: name of the row.
        prompt: prompt of the text task, "" for none; present if the config has texts.
        answer: answer of the text task; present if the config has texts.
        broken: files that could not be read and were replaced by this one.
    """

    audio: Tensor
    latents: Tensor
    codes: Tensor
    audio_lengths: int
    layout: int
    target_layout: int
    columns: dict[str, int | float]
    index: int
    file_name: str
    prompt: str
    answer: str
    broken: list[SkippedFile]


class Batch(TypedDict, total=False):
    """Input of an objective; the loader fills all fields but the last.

    Attributes:
        audio: `(batch, channels, samples)` float32, in the channel layout of the network; data sets of audio only.
        latents: `(batch, dim, frames * K)` float32, zero past an item's end; corpora of latents only.
        codes: `(batch, num_quantizers, frames * K)` int64, -1 past an item's end; corpora with codes only.
        audio_lengths: `(batch,)` int64, samples before zero padding.
        layout: `(batch,)` int64, channel layouts of the audio.
        target_layout: `(batch,)` int64, channel layouts requested from the decoder; data sets of audio only.
        columns: `(batch,)` float32 or int64 per name in `DataConfig.columns`; absent if there are none.
        index: `(batch,)` int64, rows in the data set; of a stream, rows in their shards.
        file_name: name of each item.
        prompt: prompt of each item, "" for none; present if the config has texts.
        answer: answer of each item; present if the config has texts.
        broken: files that could not be read and were replaced by others.
        samples: detached output of the previous phase.
    """

    audio: Tensor
    latents: Tensor
    codes: Tensor
    audio_lengths: Tensor
    layout: Tensor
    target_layout: Tensor
    columns: dict[str, Tensor]
    index: Tensor
    file_name: list[str]
    prompt: list[str]
    answer: list[str]
    broken: list[SkippedFile]
    samples: Tensor


def collate(items: list[Item]) -> Batch:
    """Stack items to a batch."""
    batch: dict[str, Any] = {"broken": [reason for item in items for reason in item["broken"]]}
    for name in items[0].keys() - {"broken", "columns"}:
        values = [item[name] for item in items]
        if isinstance(values[0], Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = values if isinstance(values[0], str) else torch.tensor(values)
    if "columns" in items[0]:
        batch["columns"] = {name: _stack([item["columns"][name] for item in items]) for name in items[0]["columns"]}
    return Batch(**batch)


def move_batch(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with all of its tensors, including those of `columns`, on a device."""
    moved = {}
    for name, value in batch.items():
        if isinstance(value, dict):
            value = move_batch(value, device)
        moved[name] = value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
    return moved


def _stack(numbers: list[int | float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32 if isinstance(numbers[0], float) else torch.int64)
