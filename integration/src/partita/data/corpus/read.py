"""Stored latents: a corpus of them as `encode_corpus` writes it, opened as a data set and read row by row.

A row holds the columns of the source and

* `audio_length`: samples, at the codec's sample rate; `layout`: the `ChannelLayout` that was encoded; `frames`;
* `latents`: the values as bytes, token by token: `numpy.frombuffer(row["latents"], dtype).reshape(-1, dim)`;
* `codes`: likewise, `reshape(-1, num_quantizers)`, -1 for dropped levels; `gain`: float32, one a frame. Each of the
  three where the codec makes it.

`corpus.json` beside the shards says what they mean.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from partita_core import (
    ChannelLayout,
    Codec,
    Latents,
    LatentSpec,
    PartitaError,
    first_line,
    from_dict,
    parse_json,
    read_json,
    short_repr,
    to_dict,
)
from torch import Tensor

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

CORPUS = "corpus.json"

CONTENT = ("latents", "codes", "gain")
"""The columns of bytes."""

COLUMNS = ("audio_length", "layout", "frames", *CONTENT)
"""What a corpus adds to the columns of its source."""

_KEY = "partita_corpus"


@dataclass(frozen=True)
class CorpusSpec:
    """What the rows of a corpus mean.

    Attributes:
        latent: what the latents are.
        space_id: names the encoder and bottleneck that they come from.
        codes_id: names the quantizer that the codes come from.
        dtype: of the stored values; None where there are codes only.
        codes_dtype: of the stored codes; None where there are none.
        gain: whether the codec takes a scale out of each frame.
    """

    latent: LatentSpec
    space_id: str
    codes_id: str | None
    dtype: Literal["float32", "float16"] | None
    codes_dtype: Literal["int16", "int32"] | None
    gain: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes that a frame takes."""
        values = self.latent.dim * np.dtype(self.dtype).itemsize if self.dtype else 0
        codes = len(self.latent.codebook_sizes) * np.dtype(self.codes_dtype).itemsize if self.codes_dtype else 0
        return self.latent.tokens_per_frame * (values + codes) + 4 * self.gain

    def check(self, codec: Codec) -> None:
        """Holds the corpus against a codec that is to use it.

        Raises:
            PartitaError: the latents are of another space.
        """
        if self.space_id != codec.space_id:
            spaces = f"of the space {self.space_id}, the codec's is {codec.space_id}"
            raise PartitaError(f"the stored latents are {spaces}; encode the audio with this codec")

    def pack(self, latents: Latents, file_name: str) -> dict[str, Any]:
        """Columns that a corpus adds, for the one item of `latents` of a file; None in those that it does not keep.

        Raises:
            PartitaError: `unpack` would refuse the row, as of values beyond the range of float16.
        """
        kept = {"latents": (latents.values, self.dtype), "codes": (latents.codes, self.codes_dtype)}
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"audio_length": int(latents.audio_lengths[0]), "layout": int(latents.layout[0])}
        row["frames"] = int(latents.frames[0])
        for name, (tensor, dtype) in kept.items():
            if dtype is not None:
                assert tensor is not None
                with np.errstate(over="ignore"):  # `unpack` looks for what does not fit
                    row[name] = tensor[0].T.cpu().numpy().astype(dtype).tobytes()
        if self.gain:
            assert latents.gain is not None
            row["gain"] = latents.gain[0].float().cpu().numpy().tobytes()
        self.unpack(row | {"file_name": file_name})
        return row

    def unpack(self, row: Mapping[str, Any], start: int = 0, frames: int | None = None) -> dict[str, Tensor]:
        """What a row holds of `frames` frames from `start`; of all that follow for None.

        Returns:
            Those there are of `latents` `(dim, frames * K)` float32, `codes` `(num_quantizers, frames * K)` int64 and
            `gain` `(frames,)` float32.

        Raises:
            PartitaError: the row is damaged.
        """
        self.check_row(row)
        total, tokens = row["frames"], self.latent.tokens_per_frame
        frames = total - start if frames is None else frames
        kinds = {
            "latents": (self.dtype, tokens, self.latent.dim, np.float32),
            "codes": (self.codes_dtype, tokens, len(self.latent.codebook_sizes), np.int64),
            "gain": ("float32" if self.gain else None, 1, 1, np.float32),
        }
        found = {}
        for name, (dtype, steps, width, wanted) in kinds.items():
            if dtype is None:
                continue
            data, size = row.get(name), steps * width
            if not isinstance(data, bytes) or len(data) != total * size * np.dtype(dtype).itemsize:
                raise PartitaError(f"{row.get('file_name')}: the stored {name} are not those of {total} frames")
            part = np.frombuffer(data, dtype, frames * size, start * size * np.dtype(dtype).itemsize)
            if name == "codes":
                digits = part.reshape(-1, width)
                right = ((digits >= -1) & (digits < self.latent.codebook_sizes)).all()
            else:
                right = np.isfinite(part).all()
            if not right:
                wrong = "no codes of their levels" if name == "codes" else "not finite (NaN or infinite)"
                raise PartitaError(f"{row.get('file_name')}: some of the stored {name} are {wrong}")
            found[name] = torch.from_numpy(part.reshape(frames * steps, width).astype(wanted).T)
        if "gain" in found:
            found["gain"] = found["gain"][0]
        return found

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Holds the figures of a row against each other.

        Raises:
            PartitaError: they are not those of stored latents.
        """
        frames, length, layout = (row.get(name) for name in ("frames", "audio_length", "layout"))
        right = isinstance(length, int) and length >= 1 and frames == self.latent.frames(length)
        figures = isinstance(frames, int) and isinstance(layout, int)
        if not right or not figures or layout not in tuple(ChannelLayout):
            said = f"audio_length {length}, frames {frames} and layout {layout}"
            raise PartitaError(f"{row.get('file_name')}: {said} are not those of stored latents")

    def latents(self, row: Mapping[str, Any]) -> Latents:
        """A row as the record that `Codec.encode` returned of the file.

        Raises:
            PartitaError: the row is damaged.
        """
        found = {name: tensor[None] for name, tensor in self.unpack(row).items()}
        return Latents(
            values=found.get("latents"),
            codes=found.get("codes"),
            audio_lengths=torch.tensor([row["audio_length"]]),
            layout=torch.tensor([row["layout"]]),
            spec=self.latent,
            space_id=self.space_id,
            codes_id=self.codes_id,
            gain=found.get("gain"),
        )


@dataclass(frozen=True)
class SplitPlan:
    """How a split is cut into shards, which depends on its files alone.

    Attributes:
        names: a hash over the file names, in their order.
        ends: for each shard, the row of the source behind its last; it begins where the one before it ends.
        seconds: of audio in each shard.
    """

    names: str
    ends: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class CorpusRecord:
    """What `corpus.json` says.

    Attributes:
        corpus: what the rows mean.
        layout: that all files were encoded as; None for each file's own.
        num_quantizers: levels of codes that were asked for; None for all.
        splits: by name.
        precision: of the weights that encoded, as torch calls it; empty where it was not recorded.
    """

    corpus: CorpusSpec
    layout: str | None
    num_quantizers: int | None
    splits: dict[str, SplitPlan]
    precision: str = ""


def read_record(folder: Path) -> CorpusRecord:
    """What the `corpus.json` of a folder says.

    Raises:
        PartitaError: there is none, or it describes no corpus.
    """
    path = folder / CORPUS
    record = from_dict(CorpusRecord, read_json(path), where=str(path))
    for split, plan in record.splits.items():
        ends = (0, *plan.ends)
        if not plan.ends or len(plan.ends) != len(plan.seconds) or any(b <= a for a, b in zip(ends, ends[1:])):
            raise PartitaError(f"{path}: the ends and seconds of {short_repr(split)} are not those of shards")
        if split in ("", ".", "..") or not set("/\\\0").isdisjoint(split):
            raise PartitaError(f"{path}: {short_repr(split)} is no name of a split, which is a folder beside it")
    return record


def corpus_spec(dataset: "Dataset | IterableDataset") -> CorpusSpec | None:
    """What the latents of a data set are; None for one of audio.

    Raises:
        PartitaError: latents of several corpora were mixed.
    """
    # The description goes along when rows are selected, shuffled or joined, and several are joined to what is no JSON.
    if not dataset.info.description.startswith(f'{{"{_KEY}"'):
        return None
    try:
        record = parse_json(dataset.info.description)
    except PartitaError:
        raise PartitaError("the data set mixes latents of several corpora; take one of them") from None
    return from_dict(CorpusSpec, record[_KEY], where=CORPUS)


def stored_latents(dataset: "Dataset") -> Iterator[Latents]:
    """The latents of every row, one item each, in the order of the data set.

    Raises:
        PartitaError: it is no corpus, or a row is damaged.
    """
    spec = corpus_spec(dataset)
    if spec is None:
        raise PartitaError("the data set holds audio, not latents; encode it first")
    for row in dataset:
        yield spec.latents(row)  # pyright: ignore[reportArgumentType]


class StoredCorpus:
    """A corpus of latents as a data set.

    Attributes:
        path: its folder.
        splits: the names of its splits.
    """

    def __init__(self, path: Path) -> None:
        """Read what the corpus says of itself.

        Raises:
            PartitaError: that cannot be read.
        """
        self.path, self._record = path, read_record(path)
        self.splits = tuple(self._record.splits)

    def missing(self, split: str) -> str:
        """One line for a split that is not there."""
        return f"{self.path}: has no split {split!r}; it has {', '.join(self.splits)}"

    def open(self, split: str, *, stream: bool = False) -> "Dataset":
        """The rows of a split; as a stream, shard by shard, where that is wanted.

        Raises:
            PartitaError: its encoding is not finished, or a shard cannot be read.
        """
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        folder, record = self.path, self._record
        count = len(record.splits[split].ends)
        files = [shard_path(folder, split, number) for number in range(count)]
        missing = sum(not file.is_file() for file in files)
        if missing:
            left = f"{missing} of {count} shards of {split!r} are missing"
            raise PartitaError(f"{folder}: {left}; give the command that encodes it once more, and it goes on")
        try:
            shards = {split: [str(file) for file in files]}
            dataset = load_dataset("parquet", data_files=shards, split=split, streaming=stream)
        except (ValueError, OSError, DatasetsError) as error:
            raise PartitaError(f"{folder}: {with_cause(error)}") from None
        dataset.info.description = json.dumps({_KEY: to_dict(record.corpus)})
        return dataset  # pyright: ignore[reportReturnType]


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Where a shard lies."""
    return folder / split / f"latents-{number:05d}.parquet"


def with_cause(error: BaseException) -> str:
    """What an error of a library says, in one line, and what it says of its cause."""
    line, cause = first_line(error), error.__cause__
    return line if cause is None or str(cause) == str(error) else f"{line.rstrip('.')}: {with_cause(cause)}"
