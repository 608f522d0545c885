"""Latents to train on: those that a corpus holds, or those that a frozen codec makes of a batch of audio."""

from typing import TYPE_CHECKING

import torch
from partita_core import Codec, Latents, LatentSpec, PartitaError
from torch import Tensor
from torch.nn import functional as F

from partita.data import Batch, CorpusSpec

if TYPE_CHECKING:
    from .objective import Objective

SOURCE = "audio|latents"
"""What an objective on latents names in its `requires`: either will do."""

CODES = "audio|codes"
"""What an objective on codes names there."""


def latents_of(batch: Batch, codec: Codec) -> Tensor:
    """The latents `(batch, dim, frames * K)` of a batch, zero past each item's end.

    Stored ones are what `Codec.encode` made of whole files; of audio they are what it makes of the crop, without
    gradients.

    Args:
        batch: with `latents`, or with `audio`, `audio_lengths` and `layout`.
        codec: makes latents of audio.
    """
    if "latents" in batch:
        return batch["latents"]
    return _of_crops(_encode(batch, codec).values, batch, codec.latent_spec, beyond=0)


def codes_of(batch: Batch, codec: Codec) -> Tensor:
    """The codes `(batch, num_quantizers, frames * K)` of a batch, -1 past each item's end; otherwise as `latents_of`.

    Args:
        batch: with `codes`, or with `audio`, `audio_lengths` and `layout`.
        codec: makes codes of audio.
    """
    if "codes" in batch:
        return batch["codes"]
    return _of_crops(_encode(batch, codec).codes, batch, codec.latent_spec, beyond=-1)


def tokens_of(batch: Batch, spec: LatentSpec) -> Tensor:
    """`(batch,)` int64 on the CPU: the tokens of each item that are no padding."""
    return spec.tokens(batch["audio_lengths"].cpu())


def repeated(values: Tensor, tokens: Tensor) -> Tensor:
    """Each item of `(batch, dim, total)` from its start again where its `tokens` end, so that no padding is learned."""
    places = torch.arange(values.shape[-1]) % tokens[:, None]
    return values.gather(2, places.to(values.device)[:, None].expand_as(values))


def check_corpus(objective: "Objective", corpus: CorpusSpec) -> None:
    """Holds stored latents against an objective that is to be trained on them.

    Raises:
        PartitaError: it needs audio, or what is not stored of latents and codes, or they are of another codec than its
            own.
    """
    name = type(objective).__name__
    if "audio" in objective.requires:
        raise PartitaError(f"{name} needs audio, and the data is stored latents; name the audio they were made of")
    if SOURCE in objective.requires and corpus.dtype is None:
        raise PartitaError(f"{name} needs latents, and the data is codes alone; encode the audio without --only codes")
    kept = None if corpus.codes_dtype is None else corpus.codes_id
    if CODES in objective.requires and kept != objective.codec.codes_id:
        stored = "no codes" if kept is None else f"those of the quantizer {kept}"
        raise PartitaError(f"{name} needs codes of {objective.codec.codes_id}, and the data holds {stored}")
    corpus.check(objective.codec)


def _encode(batch: Batch, codec: Codec) -> Latents:
    return codec.encode(batch["audio"], lengths=batch["audio_lengths"], layout=batch["layout"])


def _of_crops(made: Tensor | None, batch: Batch, spec: LatentSpec, *, beyond: int) -> Tensor:
    """What was made of a batch, as long as its crops are: a record ends with the longest item."""
    assert made is not None
    tokens = spec.frames(batch["audio"].shape[-1]) * spec.tokens_per_frame
    return F.pad(made, (0, tokens - made.shape[-1]), value=beyond)
