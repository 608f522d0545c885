"""The record of a batch of token ids, with all that is needed to make audio of them again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from partita_core import Latents, LatentSpec, PartitaError, from_dict, read_tensors, to_dict, write_tensors
from torch import Tensor

from .token_space import TokenSpace


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of token ids that says what it is: `Latents` for language models.

    Attributes:
        ids: int64, `(batch, length)`, or `(batch, num_quantizers, length)` in the delay layout.
        space: what the ids mean.
        audio_lengths: `(batch,)` int64 on the CPU, samples at `spec.sample_rate`.
        channel_layout: `(batch,)` int64 on the CPU, the `ChannelLayout` of each item's audio.
        spec: of the latents that the codes stand for.
        space_id: names the encoder and bottleneck they come from; None where nobody vouches for it.
        codes_id: names the quantizer, likewise.
        gain: `(batch, frames)` of codecs that scale their input; or None.
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
        """Refuses a record that contradicts itself."""
        if self.space.codebook_sizes != self.spec.codebook_sizes:
            raise PartitaError(
                f"the ids are of codebooks {self.space.codebook_sizes}, the latents have {self.spec.codebook_sizes}"
            )

    def __len__(self) -> int:
        return len(self.audio_lengths)

    @classmethod
    def from_latents(
        cls, latents: Latents, *, num_quantizers: int | None = None, layout: Literal["flat", "delay"] = "flat"
    ) -> Self:
        """The ids of the codes of `latents`.

        Args:
            latents: with codes.
            num_quantizers: levels to keep; None for all, which then must be there.
            layout: of the ids, see `TokenSpace`.

        Raises:
            PartitaError: there are no codes, or not as many levels.
        """
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
        """The latents, of codes alone.

        Args:
            num_quantizers: levels to keep of those that the ids have; None for all.

        Raises:
            PartitaError: the ids are not of the space, or not as many as the audio is long; or they have fewer levels.
        """
        levels = len(self.space.kept)
        if num_quantizers is not None and not 1 <= num_quantizers <= levels:
            raise PartitaError(f"num_quantizers is {num_quantizers}; these ids have {levels} levels")
        codes = self.space.decode(self.ids)
        counts = (codes[:, 0] >= 0).sum(-1).tolist()
        frames = (self.spec.frames(samples) for samples in self.audio_lengths.tolist())
        expected = [count * self.spec.tokens_per_frame for count in frames]
        if counts != expected:
            raise PartitaError(f"the ids are {counts} tokens, but audio_lengths say {expected}")
        if num_quantizers is not None:
            codes[:, num_quantizers:] = -1
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
        """Writes the record as one `.safetensors` file, whole or not at all."""
        tensors = {"ids": self.ids, "audio_lengths": self.audio_lengths, "channel_layout": self.channel_layout}
        if self.gain is not None:
            tensors["gain"] = self.gain
        header = {
            "space": to_dict(self.space),
            "spec": to_dict(self.spec),
            "space_id": self.space_id,
            "codes_id": self.codes_id,
        }
        write_tensors(path, tensors, {"partita_tokens": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> "Tokens":
        """Reads what `save` wrote.

        Raises:
            PartitaError: it is no such file, or is damaged.
        """
        tensors, metadata = read_tensors(path)
        try:
            header = json.loads(metadata["partita_tokens"])
            return cls(
                ids=tensors["ids"],
                space=from_dict(TokenSpace, header["space"], where="space"),
                audio_lengths=tensors["audio_lengths"],
                channel_layout=tensors["channel_layout"],
                spec=from_dict(LatentSpec, header["spec"], where="spec"),
                space_id=header["space_id"],
                codes_id=header["codes_id"],
                gain=tensors.get("gain"),
            )
        except PartitaError as error:
            raise PartitaError(f"{path}: {error}") from None
        except (KeyError, ValueError, TypeError):
            raise PartitaError(f"{path} holds no tokens") from None
