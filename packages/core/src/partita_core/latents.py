"""The record that users hold: latents that say what they are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from .configs import from_dict, to_dict
from .errors import PartitaError
from .files import read_tensors, write_tensors
from .latent_scale import LatentScale
from .layouts import ChannelLayout
from .specs import LatentSpec


def regroup(values: Tensor, dim: int) -> Tensor:
    """The same numbers as vectors of another width; `regroup(result, width)` is the exact way back.

    Neighbouring tokens are joined, or one is split into neighbours: frames of 128 tokens of 4 channels are, for a
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
    if width * tokens % dim:
        raise PartitaError(f"{tokens} tokens of {width} channels cannot be regrouped to tokens of {dim}")
    return values.transpose(1, 2).reshape(batch, width * tokens // dim, dim).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Latents:
    """A batch of latents, with all that is needed to decode them or to model them.

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
        """Refuses a record that contradicts itself."""
        if self.values is None and self.codes is None:
            raise PartitaError("latents need values or codes")
        if self.values is not None and (self.values.dim() != 3 or self.values.shape[1] != self.spec.dim):
            raise PartitaError(f"values are {tuple(self.values.shape)}; (batch, {self.spec.dim}, tokens) is expected")
        if self.codes is not None and (self.codes.dim() != 3 or self.codes.is_floating_point()):
            raise PartitaError(f"codes are {tuple(self.codes.shape)} {self.codes.dtype}; 3-D int64 is expected")
        tokens = int(self.frames.max()) * self.spec.tokens_per_frame if len(self) else 0
        for name in ("values", "codes"):
            tensor = getattr(self, name)
            if tensor is not None and (tensor.shape[0] != len(self) or tensor.shape[-1] != tokens):
                expected = f"{len(self)} items of {tokens} tokens"
                raise PartitaError(f"{name} are {tuple(tensor.shape)}, but audio_lengths say {expected}")
        frames = (len(self), tokens // self.spec.tokens_per_frame)
        if self.gain is not None and self.gain.shape != frames:
            raise PartitaError(f"gain is {tuple(self.gain.shape)}, but audio_lengths say {frames}")

    def __len__(self) -> int:
        return len(self.audio_lengths)

    @property
    def frames(self) -> Tensor:
        """`(batch,)` int64: frames of each item."""
        return -(-self.audio_lengths // self.spec.hop)

    def __getitem__(self, index: int) -> "Latents":
        """Item `index` alone, without what pads it in the batch."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
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
        """Writes the record as one `.safetensors` file, whole or not at all."""
        names = ("values", "codes", "audio_lengths", "layout", "gain")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        header = {
            "spec": to_dict(self.spec),
            "space_id": self.space_id,
            "codes_id": self.codes_id,
            "normalized": self.normalized,
        }
        write_tensors(path, tensors, {"partita_latents": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> "Latents":
        """Reads what `save` wrote.

        Raises:
            PartitaError: it is no such file, or is damaged.
        """
        tensors, metadata = read_tensors(path)
        try:
            header = json.loads(metadata["partita_latents"])
            return cls(
                values=tensors.get("values"),
                codes=tensors.get("codes"),
                audio_lengths=tensors["audio_lengths"],
                layout=tensors["layout"],
                spec=from_dict(LatentSpec, header["spec"], where="spec"),
                space_id=header["space_id"],
                codes_id=header["codes_id"],
                gain=tensors.get("gain"),
                normalized=bool(header["normalized"]),
            )
        except PartitaError as error:
            raise PartitaError(f"{path}: {error}") from None
        except (KeyError, ValueError, TypeError):
            raise PartitaError(f"{path} holds no latents") from None

    @classmethod
    def concatenate(cls, pieces: Sequence["Latents"]) -> "Latents":
        """Joins consecutive pieces of one recording, as `StreamEncoder.push` returns them.

        Raises:
            PartitaError: a piece before the last one does not fill its frames.
        """
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

    def _scale(self) -> tuple[Tensor, LatentScale]:
        if self.values is None:
            raise PartitaError("these latents hold codes only; there are no values to normalize")
        if self.spec.mean is None or self.spec.std is None:
            raise PartitaError("the model's latent statistics have not been measured; nothing to normalize with")
        return self.values, LatentScale(self.spec)

    def _within(self, values: Tensor) -> Tensor:
        ends = (self.frames * self.spec.tokens_per_frame).to(values.device)
        inside = torch.arange(values.shape[-1], device=values.device) < ends[:, None, None]
        return torch.where(inside, values, 0)
