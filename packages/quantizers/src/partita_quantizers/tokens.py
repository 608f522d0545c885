"""Batches of token ids with the metadata to decode them to audio."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self

from partita_core import (
    Latents,
    LatentSpec,
    PartitaError,
    as_integers,
    as_tensor,
    from_dict,
    parse_json,
    read_tensors,
    resolve_num_quantizers,
    short_repr,
    to_dict,
    write_tensors,
)
from torch import Tensor

from .token_space import TokenSpace

_TENSORS = {"ids": as_integers, "audio_lengths": as_integers, "channel_layout": as_integers, "gain": as_tensor}


@dataclass(frozen=True)
class _Header:
    """Metadata of a token file; the fields are those of `Tokens`."""

    space: TokenSpace
    spec: LatentSpec
    space_id: str | None
    codes_id: str | None


@dataclass(frozen=True, eq=False)
class Tokens:
    """Batch of token ids with metadata: the counterpart of `Latents` for language models.

        tokens = Tokens.from_latents(codec.encode(audio), num_quantizers=4)
        tokens.save("clip.safetensors")
        audio = codec.decode(Tokens.load("clip.safetensors").to_latents())

    Attributes:
        ids: int64 `(batch, length)`, or `(batch, num_quantizers, length)` in the delay layout.
        space: meaning of the ids.
        audio_lengths: `(batch,)` int64 on the CPU, samples at `spec.sample_rate`.
        channel_layout: `(batch,)` int64 on the CPU, `ChannelLayout` of each item's audio.
        spec: spec of the latents that the codes represent.
        space_id: fingerprint of the encoder and bottleneck; None if unknown.
        codes_id: fingerprint of the quantizer; None if unknown.
        gain: `(batch, frames)` scale of codecs that normalize their input; None for others.
    """

    ids: Tensor
    space: TokenSpace
    audio_lengths: Tensor
    channel_layout: Tensor
    spec: LatentSpec
    space_id: str | None = None
    codes_id: str | None = None
    gain: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that the fields are consistent, and convert arrays and lists to tensors."""
        for name, convert in _TENSORS.items():
            if (value := getattr(self, name)) is not None or name != "gain":
                object.__setattr__(self, name, convert(value, name))
        for name, kind in (("space", TokenSpace), ("spec", LatentSpec)):
            if not isinstance(value := getattr(self, name), kind):
                raise PartitaError(f"{name} is {short_repr(value)}; a {kind.__name__} is expected")
        for name in ("audio_lengths", "channel_layout"):
            tensor = getattr(self, name)
            if tensor.dim() != 1 or len(tensor) != len(self):
                raise PartitaError(f"{name} is {tuple(tensor.shape)}; ({len(self)},) is expected")
            object.__setattr__(self, name, tensor.cpu())
        if self.space.codebook_sizes != self.spec.codebook_sizes:
            raise PartitaError(
                f"space has codebook sizes {self.space.codebook_sizes}, spec {self.spec.codebook_sizes}; "
                "both must be those of one quantizer"
            )

    def __len__(self) -> int:
        return len(self.audio_lengths)

    @classmethod
    def from_latents(
        cls, latents: Latents, *, num_quantizers: int | None = None, layout: Literal["flat", "delay"] = "flat"
    ) -> Self:
        """Encode the codes of `latents` as ids.

        Args:
            latents: latents with codes.
            num_quantizers: number of levels to keep; None for all, none of which may be missing.
            layout: layout of the ids; see `TokenSpace`.

        Raises:
            PartitaError: there are no codes, or fewer levels.
        """
        if not isinstance(latents, Latents):
            raise PartitaError(f"latents is a {type(latents).__name__}; Latents with codes are expected")
        latents = latents.only_codes()
        assert latents.codes is not None
        space = TokenSpace(latents.spec.codebook_sizes, num_quantizers, layout)
        return cls(
            ids=space.encode(latents.codes),
            space=space,
            audio_lengths=latents.audio_lengths,
            channel_layout=latents.layout,
            spec=latents.spec,
            space_id=latents.space_id,
            codes_id=latents.codes_id,
            gain=latents.gain,
        )

    def to_latents(self, *, num_quantizers: int | None = None) -> Latents:
        """Decode the ids to latents that have codes only.

        Args:
            num_quantizers: number of levels to keep; None for all levels of the ids.

        Raises:
            PartitaError: the ids are invalid in `space`, do not fit `audio_lengths`, or have fewer levels.
        """
        kept = resolve_num_quantizers(num_quantizers, len(self.space.kept), "this sequence of ids")
        codes = self.space.decode(self.ids)
        counts = (codes[:, 0] >= 0).sum(-1).tolist()
        frames = (self.spec.frames(samples) for samples in self.audio_lengths.tolist())
        expected = [count * self.spec.tokens_per_frame for count in frames]
        if counts != expected:
            raise PartitaError(f"the ids have {counts} tokens per item; audio_lengths require {expected}")
        codes[:, kept:] = -1
        return Latents(
            values=None,
            codes=codes,
            audio_lengths=self.audio_lengths,
            layout=self.channel_layout,
            spec=self.spec,
            space_id=self.space_id,
            codes_id=self.codes_id,
            gain=self.gain,
        )

    def save(self, path: str | Path) -> None:
        """Write a `.safetensors` file atomically.

        Raises:
            PartitaError: the tokens are invalid, so that `load` would fail (see `to_latents`), or the path cannot be
                written.
        """
        try:
            self.to_latents().check()
        except PartitaError as error:
            raise PartitaError(f"cannot write {path}: {error}") from None
        tensors = {name: getattr(self, name) for name in _TENSORS if getattr(self, name) is not None}
        header = _Header(self.space, self.spec, self.space_id, self.codes_id)
        write_tensors(path, tensors, {"partita_tokens": json.dumps(to_dict(header))})

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Read a file that `save` wrote, and check every id.

        Raises:
            PartitaError: the file is not such a file, is damaged, or contradicts its metadata; see `to_latents`.
        """
        tensors, metadata = read_tensors(path)
        if "partita_tokens" not in metadata or not {"ids", "audio_lengths", "channel_layout"} <= tensors.keys():
            raise PartitaError(f"{path} is not a token file; write one with Tokens.save")
        try:
            header = from_dict(_Header, parse_json(metadata["partita_tokens"]), where="header")
            if stray := sorted(tensors.keys() - set(_TENSORS)):
                raise PartitaError(f"unexpected tensor {short_repr(stray[0])}")
            found = {name: tensors.get(name) for name in _TENSORS}
            tokens = cls(**found, **{field.name: getattr(header, field.name) for field in fields(header)})
            tokens.to_latents().check()
        except PartitaError as error:
            raise PartitaError(f"{path}: {error}") from None
        return tokens
