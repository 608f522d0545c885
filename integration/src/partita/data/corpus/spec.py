"""Specification of the rows of a corpus, and packing of latents into columns of bytes and back.

A row holds the columns of the source and

* `audio_length`: samples at the codec's sample rate; `layout`: the encoded `ChannelLayout`; `frames`;
* `latents`: the values as bytes, token by token: `numpy.frombuffer(row["latents"], dtype).reshape(-1, dim)`;
* `codes`: in the same way, `reshape(-1, num_quantizers)`, -1 for dropped levels;
* `gain`: float32, one per frame.

The last three are there if the codec produces them. `corpus.json` next to the shards holds the `CorpusSpec`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from partita_core import ChannelLayout, Codec, Latents, LatentSpec, PartitaError, from_dict, parse_json
from torch import Tensor

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

CORPUS = "corpus.json"
"""File that makes a folder a corpus."""

CONTENT = ("latents", "codes", "gain")
"""Columns of bytes."""

COLUMNS = ("audio_length", "layout", "frames", *CONTENT)
"""Columns that a corpus adds to those of its source."""

DESCRIPTION = "partita_corpus"
"""Key of the `CorpusSpec` in the description of a data set."""


@dataclass(frozen=True)
class CorpusSpec:
    """Meaning of the rows of a corpus.

    Attributes:
        latent: spec of the latents.
        space_id: fingerprint of the encoder and bottleneck that produced the latents.
        codes_id: fingerprint of the quantizer that produced the codes.
        dtype: type of the stored values; None if only codes are stored.
        codes_dtype: type of the stored codes; None if there are none.
        gain: True if a scale per frame is stored.
    """

    latent: LatentSpec
    space_id: str
    codes_id: str | None
    dtype: Literal["float32", "float16"] | None
    codes_dtype: Literal["int16", "int32"] | None
    gain: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes per frame."""
        values = self.latent.dim * np.dtype(self.dtype).itemsize if self.dtype else 0
        codes = len(self.latent.codebook_sizes) * np.dtype(self.codes_dtype).itemsize if self.codes_dtype else 0
        return self.latent.tokens_per_frame * (values + codes) + 4 * self.gain

    def check(self, codec: Codec) -> None:
        """Check that the latents belong to the latent space of a codec.

        Raises:
            PartitaError: they belong to another space.
        """
        if self.space_id != codec.space_id:
            spaces = f"of the space {self.space_id}, the codec's is {codec.space_id}"
            raise PartitaError(f"the stored latents are {spaces}; encode the audio with this codec")

    def pack(self, latents: Latents, file_name: str) -> dict[str, Any]:
        """Columns that a corpus adds for one file; None for those that it does not store.

        Args:
            latents: latents of the file, one item.
            file_name: name of the file, for error messages.

        Raises:
            PartitaError: the latents cannot be stored, for example values beyond the range of float16.
        """
        kept = {"latents": (latents.values, self.dtype), "codes": (latents.codes, self.codes_dtype)}
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"audio_length": int(latents.audio_lengths[0]), "layout": int(latents.layout[0])}
        row["frames"] = int(latents.frames[0])
        for name, (tensor, dtype) in kept.items():
            if dtype is not None:
                assert tensor is not None
                with np.errstate(over="ignore"):  # `unpack` reports values that do not fit
                    row[name] = tensor[0].T.cpu().numpy().astype(dtype).tobytes()
        if self.gain:
            assert latents.gain is not None
            row["gain"] = latents.gain[0].float().cpu().numpy().tobytes()
        self.unpack(row | {"file_name": file_name})
        return row

    def unpack(self, row: Mapping[str, Any], start: int = 0, frames: int | None = None) -> dict[str, Tensor]:
        """Contents of a row.

        Args:
            row: the row.
            start: first frame.
            frames: number of frames; None for all that follow.

        Returns:
            Those stored of `latents` `(dim, frames * K)` float32, `codes` `(num_quantizers, frames * K)` int64 and
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
            data, frame_bytes = row.get(name), steps * width * np.dtype(dtype).itemsize
            if not isinstance(data, bytes) or len(data) != total * frame_bytes:
                held = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
                needed = f"{total * frame_bytes} bytes of {total} frames"
                raise PartitaError(f"{row.get('file_name')}: the stored {name} are {held}, not {needed}")
            part = np.frombuffer(data, dtype, frames * steps * width, start * frame_bytes)
            part = part.reshape(frames * steps, width)
            if name == "codes":
                if not ((part >= -1) & (part < self.latent.codebook_sizes)).all():
                    sizes = f"the codebook sizes {self.latent.codebook_sizes}"
                    raise PartitaError(f"{row.get('file_name')}: some of the stored codes are not within {sizes}")
            elif not np.isfinite(part).all():
                raise PartitaError(
                    f"{row.get('file_name')}: some of the stored {name} are not finite (NaN or infinite)"
                )
            found[name] = torch.from_numpy(part.astype(wanted).T)
        if "gain" in found:
            found["gain"] = found["gain"][0]
        return found

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Check the length, frames and layout of a row against each other.

        Raises:
            PartitaError: they are inconsistent.
        """
        frames, length, layout = (row.get(name) for name in ("frames", "audio_length", "layout"))
        consistent = isinstance(length, int) and length >= 1 and frames == self.latent.frames(length)
        integers = isinstance(frames, int) and isinstance(layout, int)
        if not consistent or not integers or layout not in tuple(ChannelLayout):
            found = f"audio_length {length}, frames {frames} and layout {layout}"
            raise PartitaError(f"{row.get('file_name')}: {found} are inconsistent; encode the file again")

    def latents(self, row: Mapping[str, Any]) -> Latents:
        """A row as the `Latents` that `Codec.encode` returned for the file.

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


def corpus_spec(dataset: "Dataset | IterableDataset") -> CorpusSpec | None:
    """Spec of the latents in a data set; None for one of audio.

    Raises:
        PartitaError: latents of several corpora were mixed.
    """
    # The description survives selecting, shuffling and joining; several are joined to a text that is not JSON.
    if not dataset.info.description.startswith(f'{{"{DESCRIPTION}"'):
        return None
    try:
        record = parse_json(dataset.info.description)
    except PartitaError:
        raise PartitaError("the data set mixes latents of several corpora; use one of them") from None
    return from_dict(CorpusSpec, record[DESCRIPTION], where=CORPUS)
