"""Latents: a batch of encoded audio, with what is needed to decode or model it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from .arrays import as_integers, as_tensor
from .codes import check_codes
from .configs import from_dict, to_dict
from .errors import PartitaError, short_repr
from .files import parse_json, read_tensors, write_tensors
from .fingerprints import check_ids
from .latent_transforms import LatentNormalizer
from .layouts import ChannelLayout
from .lengths import length_mask
from .specs import LatentSpec


@dataclass(frozen=True)
class _Header:
    """The metadata of a file of latents; fields as those of `Latents`."""

    spec: LatentSpec
    space_id: str | None
    codes_id: str | None
    normalized: bool


_TENSORS = {
    "values": as_tensor,
    "codes": as_integers,
    "audio_lengths": as_integers,
    "layout": as_integers,
    "gain": as_tensor,
}


@dataclass(frozen=True, eq=False)
class Latents:
    """A batch of latents, with all that is needed to decode or model them.

    Arrays, nested lists and integers of any width are accepted and stored as tensors.

    Attributes:
        values: `(batch, dim, frames * K)`, the decoder's input; zero past an item's end. None if only codes are kept.
        codes: `(batch, num_quantizers, frames * K)` int64, -1 for dropped levels and past an item's end; or None.
        audio_lengths: `(batch,)` int64 on the CPU, samples of each item at `spec.sample_rate`.
        layout: `(batch,)` int64 on the CPU, the `ChannelLayout` of each item's audio.
        spec: dimensions, rates and statistics of the latents.
        space_id: fingerprint of the encoder and bottleneck that made them; None if unknown.
        codes_id: fingerprint of the quantizer that made the codes; None if unknown.
        gain: `(batch, frames)`, scale of each frame, for codecs that normalize frames; zero past an item's end. Or
            None.
        normalized: True after `normalize`.

    Example:
        >>> latents = codec.encode(audio)  # two clips: (2, 1, 8000)
        >>> latents.save("clips.safetensors")
        >>> latents = Latents.load("clips.safetensors")
        >>> latents.values.shape  # batch, dim, frames
        torch.Size([2, 4, 500])
        >>> first = latents[0]  # one item, without its padding
        >>> decoded = codec.decode(first)  # (1, 1, 8000)
    """

    values: Tensor | None
    codes: Tensor | None
    audio_lengths: Tensor
    layout: Tensor
    spec: LatentSpec
    space_id: str | None = None
    codes_id: str | None = None
    gain: Tensor | None = None
    normalized: bool = False

    def __post_init__(self) -> None:
        """Check that the fields agree."""
        if self.values is None and self.codes is None:
            raise PartitaError("latents hold neither values nor codes; pass at least one of them")
        if not isinstance(self.spec, LatentSpec):
            raise PartitaError(f"spec is {short_repr(self.spec)}; a LatentSpec is expected")
        check_ids(self.space_id, self.codes_id)
        for name, convert in _TENSORS.items():
            if (value := getattr(self, name)) is not None or name in ("audio_lengths", "layout"):
                object.__setattr__(self, name, convert(value, name))
        for name in ("audio_lengths", "layout"):
            tensor = getattr(self, name)
            if tensor.dim() != 1 or len(tensor) != len(self):
                raise PartitaError(f"{name} is {tuple(tensor.shape)}; (batch,) is expected")
            object.__setattr__(self, name, tensor.cpu())
        if self.values is not None and (self.values.dim() != 3 or self.values.shape[1] != self.spec.dim):
            raise PartitaError(f"values are {tuple(self.values.shape)}; (batch, {self.spec.dim}, tokens) is expected")
        if self.codes is not None and self.codes.dim() != 3:
            raise PartitaError(f"codes are {tuple(self.codes.shape)}; (batch, num_quantizers, tokens) is expected")
        tokens = int(self.frames.max()) * self.spec.tokens_per_frame if len(self) else 0
        for name in ("values", "codes"):
            tensor = getattr(self, name)
            if tensor is not None and (tensor.shape[0] != len(self) or tensor.shape[-1] != tokens):
                expected = f"{len(self)} items of {tokens} tokens"
                raise PartitaError(f"{name} are {tuple(tensor.shape)}; audio_lengths and hop require {expected}")
        frames = (len(self), tokens // self.spec.tokens_per_frame)
        if self.gain is not None and self.gain.shape != frames:
            raise PartitaError(f"gain is {tuple(self.gain.shape)}; audio_lengths and hop require {frames}")

    def check(self, *, piece: bool = False) -> None:
        """Check every number of a record that comes from a file or a caller.

        Args:
            piece: True for a piece of a stream, which may be empty.

        Raises:
            PartitaError: there are no items, an item has no samples or an unknown layout, a number is not finite or
                beyond the bound of the spec, or a code is out of range.
        """
        if len(self) == 0:
            raise PartitaError("the latents hold 0 items; at least 1 is needed")
        if (self.audio_lengths < (0 if piece else 1)).any():
            raise PartitaError(f"audio_lengths holds {int(self.audio_lengths.min())}; an item needs at least 1 sample")
        if len(wrong := self.layout[(self.layout < 0) | (self.layout >= len(ChannelLayout))]):
            raise PartitaError(f"layout holds {int(wrong[0])}; channel layouts are 0 to {len(ChannelLayout) - 1}")
        for name in ("values", "gain"):
            tensor = getattr(self, name)
            if tensor is None:
                continue
            if not tensor.is_floating_point():
                raise PartitaError(f"the dtype of {name} is {tensor.dtype}; a floating-point type is expected")
            if not torch.isfinite(tensor).all():
                raise PartitaError(f"{name} holds numbers that are not finite (NaN or infinite)")
        if self.values is not None and self.spec.bounded and not self.normalized and (self.values.abs() > 1).any():
            largest = float(self.values.abs().max())
            raise PartitaError(f"values reach {largest:.4g}, but the spec bounds them to [-1, 1]")
        if self.codes is not None:
            check_codes(self.codes, self.spec.codebook_sizes)

    def __len__(self) -> int:
        return len(self.audio_lengths)

    @property
    def frames(self) -> Tensor:
        """Number of frames of each item, `(batch,)` int64."""
        return -(-self.audio_lengths // self.spec.hop)

    def __iter__(self) -> Iterator["Latents"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> "Latents":
        """Item `index` as a batch of one, without padding.

        Raises:
            PartitaError: `index` is not an integer, or out of range.
        """
        if not isinstance(index, int) or not -len(self) <= index < len(self):
            raise PartitaError(f"there is no item {short_repr(index)}; valid are 0 to {len(self) - 1}")
        index %= len(self)
        frames = int(self.frames[index])
        tokens = frames * self.spec.tokens_per_frame
        item = slice(index, index + 1)
        return replace(
            self,
            values=None if self.values is None else self.values[item, :, :tokens],
            codes=None if self.codes is None else self.codes[item, :, :tokens],
            audio_lengths=self.audio_lengths[item],
            layout=self.layout[item],
            gain=None if self.gain is None else self.gain[item, :frames],
        )

    def to(self, device: torch.device | str) -> Self:
        """Move values, codes and gain to `device`; lengths and layouts stay on the CPU."""
        moved = {name: getattr(self, name) for name in ("values", "codes", "gain")}
        return replace(self, **{name: None if t is None else t.to(device) for name, t in moved.items()})

    def only_codes(self) -> Self:
        """Return the record without its continuous values.

        Raises:
            PartitaError: there are no codes.
        """
        if self.codes is None:
            raise PartitaError("these latents are continuous and hold no codes; encode with a quantizer")
        return replace(self, values=None)

    def normalize(self) -> Self:
        """Normalize for a generator: bounded values through atanh, then each channel to zero mean and unit variance.

        The statistics are `spec.mean` and `spec.std`, measured after training. Normalized latents are returned as is.

        Raises:
            PartitaError: there are no values, or the spec has no statistics.
        """
        if self.normalized:
            return self
        values, scale = self._scale()
        return replace(self, values=self._within(scale.normalize(values)), normalized=True)

    def denormalize(self) -> Self:
        """Invert `normalize`; latents that are not normalized are returned as is."""
        if not self.normalized:
            return self
        values, scale = self._scale()
        return replace(self, values=self._within(scale.denormalize(values)), normalized=False)

    def save(self, path: str | Path) -> None:
        """Write the record as one `.safetensors` file, atomically.

        Raises:
            PartitaError: the record is invalid (see `check`), or the file cannot be written.
        """
        try:
            self.check()
        except PartitaError as error:
            raise PartitaError(f"cannot write {path}: {error}") from None
        tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        header = _Header(self.spec, self.space_id, self.codes_id, self.normalized)
        write_tensors(path, tensors, {"partita_latents": json.dumps(to_dict(header))})

    @classmethod
    def load(cls, path: str | Path) -> "Latents":
        """Read a record that `save` wrote, and check every number.

        Raises:
            PartitaError: the file holds no latents, is damaged, or is invalid; see `check`.
        """
        tensors, metadata = read_tensors(path)
        if "partita_latents" not in metadata or not {"audio_lengths", "layout"} <= tensors.keys():
            raise PartitaError(f"{path} does not hold latents; use a file written by Latents.save or `partita encode`")
        try:
            header = from_dict(_Header, parse_json(metadata["partita_latents"]), where="header")
            if stray := sorted(tensors.keys() - set(_TENSORS)):
                raise PartitaError(f"unexpected tensor {short_repr(stray[0])}")
            found = {name: tensors.get(name) for name in _TENSORS}
            latents = cls(**found, **{field.name: getattr(header, field.name) for field in fields(header)})
            latents.check()
        except PartitaError as error:
            raise PartitaError(f"{path}: {error}") from None
        return latents

    @classmethod
    def concatenate(cls, pieces: Sequence["Latents"]) -> "Latents":
        """Join consecutive pieces of one recording, as `StreamEncoder.push` returns them.

        Raises:
            PartitaError: there are no pieces, or a piece before the last ends within a frame.
        """
        if not isinstance(pieces, Sequence) or not pieces:
            raise PartitaError("there are no pieces to join; pass a list of at least one Latents")
        for piece in pieces:
            if not isinstance(piece, cls):
                raise PartitaError(f"a piece to join is a {type(piece).__name__}; Latents are expected")
        first = pieces[0]
        for piece in pieces[:-1]:
            if (piece.audio_lengths % first.spec.hop).any():
                samples = piece.audio_lengths.tolist()
                raise PartitaError(
                    f"a piece before the last has {short_repr(samples)} samples; multiples of the hop, "
                    f"{first.spec.hop}, are expected"
                )

        def join(name: str) -> Tensor | None:
            parts = [getattr(piece, name) for piece in pieces]
            return None if parts[0] is None else torch.cat(parts, dim=-1)

        lengths = torch.stack([piece.audio_lengths for piece in pieces]).sum(0)
        return replace(first, values=join("values"), codes=join("codes"), audio_lengths=lengths, gain=join("gain"))

    def layouts(self) -> list[ChannelLayout]:
        """The channel layout of each item."""
        return [ChannelLayout(item) for item in self.layout.tolist()]

    def _scale(self) -> tuple[Tensor, LatentNormalizer]:
        if self.values is None:
            raise PartitaError("these latents hold codes only; normalize latents that hold values")
        if self.spec.mean is None or self.spec.std is None:
            raise PartitaError("the latent spec has no mean and std; measure them with measure_latents")
        return self.values, LatentNormalizer(self.spec)

    def _within(self, values: Tensor) -> Tensor:
        inside = length_mask(self.spec.tokens(self.audio_lengths), values.shape[-1])
        return torch.where(inside[:, None].to(values.device), values, 0)
