"""The record that users hold: latents that say what they are."""

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
from .latent_normalizer import LatentNormalizer
from .layouts import ChannelLayout
from .lengths import length_mask
from .specs import LatentSpec

# Ours have 16 characters.
_LONGEST_ID = 80


def regroup(values: Tensor, dim: int) -> Tensor:
    """The same numbers as vectors of another width; `regroup(result, width)` is the exact way back.

    Neighboring tokens are joined, or one is split into neighbors: frames of 128 tokens of 4 channels are, for a
    generator, frames of 8 tokens of 64. Use it on the `values` of normalized latents.

    Args:
        values: `(batch, width, tokens)`.
        dim: the width wanted.

    Returns:
        `(batch, dim, tokens * width / dim)`; each token holds the channels of the first, then of the second, and so on.

    Raises:
        PartitaError: the numbers of an item cannot be divided so.
    """
    batch, width, tokens = values.shape
    if not isinstance(dim, int) or dim < 1 or width * tokens % dim:
        raise PartitaError(f"{tokens} tokens of {width} channels cannot be regrouped to tokens of {dim}")
    return values.transpose(1, 2).reshape(batch, width * tokens // dim, dim).transpose(1, 2)


def check_ids(*ids: object) -> None:
    """Refuses what is no name of a latent space or of codes.

    Raises:
        PartitaError: one is neither None nor a short text of printable characters.
    """
    for name in ids:
        if name is not None and not (isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST_ID):
            raise PartitaError(f"{short_repr(name)} names no latent space; a name is a short text, or None")


@dataclass(frozen=True)
class _Header:
    """What a file of latents says beside its tensors; fields as those of `Latents`."""

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
    """A batch of latents, with all that is needed to decode them or to model them.

    Arrays and nested lists are taken as well as tensors, and integers of any width; they are held as tensors.

    Attributes:
        values: `(batch, dim, frames * K)`, what the decoder was trained on; zero past an item's end. None where only
            codes are kept.
        codes: `(batch, num_quantizers, frames * K)` int64, -1 for dropped levels and past an item's end; or None.
        audio_lengths: `(batch,)` int64 on the CPU, samples at `spec.sample_rate`.
        layout: `(batch,)` int64 on the CPU, the `ChannelLayout` of each item's audio.
        spec: what the latents are.
        space_id: names the encoder and bottleneck they come from; None where nobody vouches for it.
        codes_id: names the quantizer the codes come from.
        gain: `(batch, frames)`, the scale of each frame, of codecs that take it out; zero past an item's end. Or None.
        normalized: whether `normalize` has been applied.
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
        """Check that the fields agree with each other."""
        if self.values is None and self.codes is None:
            raise PartitaError("latents need values or codes")
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
                raise PartitaError(f"{name} are {tuple(tensor.shape)}, but audio_lengths say {expected}")
        frames = (len(self), tokens // self.spec.tokens_per_frame)
        if self.gain is not None and self.gain.shape != frames:
            raise PartitaError(f"gain is {tuple(self.gain.shape)}, but audio_lengths say {frames}")

    def check(self, *, piece: bool = False) -> None:
        """Check every number of a record that comes from elsewhere.

        Args:
            piece: the record is a piece of a stream, which may be empty.

        Raises:
            PartitaError: there are no items, or one has no length or layout, or holds numbers that are not finite,
                beyond the bound of the spec, or codes out of range.
        """
        if len(self) == 0:
            raise PartitaError("there are no items")
        if (self.audio_lengths < (0 if piece else 1)).any():
            raise PartitaError(f"audio_lengths holds {int(self.audio_lengths.min())}; an item has at least one sample")
        if len(wrong := self.layout[(self.layout < 0) | (self.layout >= len(ChannelLayout))]):
            raise PartitaError(f"layout holds {int(wrong[0])}, which is no channel layout")
        for name in ("values", "gain"):
            tensor = getattr(self, name)
            if tensor is None:
                continue
            if not tensor.is_floating_point():
                raise PartitaError(f"{name} is {tensor.dtype}; floating numbers are expected")
            if not torch.isfinite(tensor).all():
                raise PartitaError(f"{name} holds numbers that are not finite (NaN or infinite)")
        if self.values is not None and self.spec.bounded and not self.normalized and (self.values.abs() > 1).any():
            raise PartitaError("values lie beyond 1, and the spec says that they are bounded")
        if self.codes is not None:
            check_codes(self.codes, self.spec.codebook_sizes)

    def __len__(self) -> int:
        return len(self.audio_lengths)

    @property
    def frames(self) -> Tensor:
        """`(batch,)` int64: frames of each item."""
        return -(-self.audio_lengths // self.spec.hop)

    def __iter__(self) -> Iterator["Latents"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> "Latents":
        """Item `index` alone, without its padding.

        Raises:
            PartitaError: `index` is no integer, or there is no such item.
        """
        if not isinstance(index, int) or not -len(self) <= index < len(self):
            raise PartitaError(
                f"there is no item {short_repr(index)}; these latents have {len(self)} items, 0 to {len(self) - 1}"
            )
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
        """The record with its tensors on `device`; lengths and layouts stay on the CPU."""
        moved = {name: getattr(self, name) for name in ("values", "codes", "gain")}
        return replace(self, **{name: None if t is None else t.to(device) for name, t in moved.items()})

    def only_codes(self) -> Self:
        """The record without its continuous values.

        Raises:
            PartitaError: there are no codes.
        """
        if self.codes is None:
            raise PartitaError("these latents are continuous; they hold no codes")
        return replace(self, values=None)

    def normalize(self) -> Self:
        """The record for a generator: bounded values through atanh, then each channel to zero mean and unit variance.

        The statistics are `spec.mean` and `spec.std`, measured after training. Applied twice it does nothing more.

        Raises:
            PartitaError: there are no values, or nobody has measured the statistics.
        """
        if self.normalized:
            return self
        values, scale = self._scale()
        return replace(self, values=self._within(scale.normalize(values)), normalized=True)

    def denormalize(self) -> Self:
        """The way back from `normalize`; does nothing to values at the decoder's scale already."""
        if not self.normalized:
            return self
        values, scale = self._scale()
        return replace(self, values=self._within(scale.denormalize(values)), normalized=False)

    def save(self, path: str | Path) -> None:
        """Write the record as one `.safetensors` file, whole or not at all.

        Raises:
            PartitaError: `load` would refuse the file; see `check`. Or the place cannot be written.
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
            PartitaError: it is no such file, or is damaged, or not what its spec says; see `check`.
        """
        tensors, metadata = read_tensors(path)
        if "partita_latents" not in metadata or not {"audio_lengths", "layout"} <= tensors.keys():
            raise PartitaError(f"{path} holds no latents")
        try:
            header = from_dict(_Header, parse_json(metadata["partita_latents"]), where="header")
            if stray := sorted(tensors.keys() - set(_TENSORS)):
                raise PartitaError(f"a stray tensor {short_repr(stray[0])}")
            found = {name: tensors.get(name) for name in _TENSORS}
            latents = cls(**found, **{field.name: getattr(header, field.name) for field in fields(header)})
            latents.check()
        except PartitaError as error:
            raise PartitaError(f"{path}: {error}") from None
        return latents

    @classmethod
    def concatenate(cls, pieces: Sequence["Latents"]) -> "Latents":
        """Joins consecutive pieces of one recording, as `StreamEncoder.push` returns them.

        Raises:
            PartitaError: there are no pieces, or one before the last does not fill its frames.
        """
        if not isinstance(pieces, Sequence) or not pieces:
            raise PartitaError("there are no pieces to join")
        for piece in pieces:
            if not isinstance(piece, cls):
                raise PartitaError(f"pieces to join are Latents, and one is a {type(piece).__name__}")
        first = pieces[0]
        for piece in pieces[:-1]:
            if (piece.audio_lengths % first.spec.hop).any():
                raise PartitaError("only the last piece may end within a frame")

        def join(name: str) -> Tensor | None:
            parts = [getattr(piece, name) for piece in pieces]
            return None if parts[0] is None else torch.cat(parts, dim=-1)

        lengths = torch.stack([piece.audio_lengths for piece in pieces]).sum(0)
        return replace(first, values=join("values"), codes=join("codes"), audio_lengths=lengths, gain=join("gain"))

    def layouts(self) -> list[ChannelLayout]:
        """The layout of each item."""
        return [ChannelLayout(item) for item in self.layout.tolist()]

    def _scale(self) -> tuple[Tensor, LatentNormalizer]:
        if self.values is None:
            raise PartitaError("these latents hold codes only; there are no values to normalize")
        if self.spec.mean is None or self.spec.std is None:
            raise PartitaError("the model's latent statistics have not been measured; nothing to normalize with")
        return self.values, LatentNormalizer(self.spec)

    def _within(self, values: Tensor) -> Tensor:
        inside = length_mask(self.spec.tokens(self.audio_lengths), values.shape[-1])
        return torch.where(inside[:, None].to(values.device), values, 0)
