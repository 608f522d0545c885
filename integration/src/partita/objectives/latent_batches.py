"""Latents and codes of a batch: stored ones, or those that a frozen codec encodes from its audio."""

from typing import TYPE_CHECKING

import torch
from partita_core import Codec, Latents, LatentSpec, PartitaError
from torch import Tensor
from torch.nn import functional as F

from partita.data import Batch, CorpusSpec

if TYPE_CHECKING:
    from .objective import Objective

SOURCE = "audio|latents"
"""Entry of `Objective.requires` for an objective on latents."""

CODES = "audio|codes"
"""Entry of `Objective.requires` for an objective on codes."""


def latents_of(batch: Batch, codec: Codec) -> Tensor:
    """Latents `(batch, dim, frames * K)` of a batch, zero past the end of each item.

    Stored latents were encoded from entire files; audio is encoded crop by crop, without gradients.

    Args:
        batch: batch with `latents`, or with `audio`, `audio_lengths` and `layout`.
        codec: codec that encodes audio.
    """
    if "latents" in batch:
        return batch["latents"]
    return _padded(_encode(batch, codec).values, batch, codec.latent_spec, padding=0)


def codes_of(batch: Batch, codec: Codec) -> Tensor:
    """Codes `(batch, num_quantizers, frames * K)` of a batch, -1 past the end of each item; see `latents_of`.

    Args:
        batch: batch with `codes`, or with `audio`, `audio_lengths` and `layout`.
        codec: codec that encodes audio.
    """
    if "codes" in batch:
        return batch["codes"]
    return _padded(_encode(batch, codec).codes, batch, codec.latent_spec, padding=-1)


def tokens_of(batch: Batch, spec: LatentSpec) -> Tensor:
    """Number of tokens of each item without padding, `(batch,)` int64 on the CPU."""
    return spec.tokens(batch["audio_lengths"].cpu())


def fill_padding(values: Tensor, tokens: Tensor) -> Tensor:
    """Repeat each item of `(batch, dim, total)` from its start after its `tokens`, so that no padding is trained on."""
    positions = torch.arange(values.shape[-1]) % tokens[:, None]
    return values.gather(2, positions.to(values.device)[:, None].expand_as(values))


def check_corpus(objective: "Objective", corpus: CorpusSpec) -> None:
    """Check that an objective can be trained on a corpus of stored latents.

    Raises:
        PartitaError: the objective needs audio, or latents or codes that are not stored, or another codec made them.
    """
    name = type(objective).__name__
    if "audio" in objective.requires:
        raise PartitaError(
            f"{name} needs audio, but the data is a corpus of latents; pass the audio that they were encoded from"
        )
    if SOURCE in objective.requires and corpus.dtype is None:
        raise PartitaError(
            f"{name} needs latents, but the corpus holds only codes; encode the audio without --only codes"
        )
    kept = None if corpus.codes_dtype is None else corpus.codes_id
    if CODES in objective.requires and kept != objective.codec.codes_id:
        stored = "no codes" if kept is None else f"codes of the quantizer {kept}"
        raise PartitaError(
            f"{name} needs codes of the quantizer {objective.codec.codes_id}, but the corpus has {stored}"
        )
    corpus.check(objective.codec)


def _encode(batch: Batch, codec: Codec) -> Latents:
    return codec.encode(batch["audio"], lengths=batch["audio_lengths"], layout=batch["layout"])


def _padded(encoded: Tensor | None, batch: Batch, spec: LatentSpec, *, padding: int) -> Tensor:
    """Pad an encoded batch to the length of its crops; `Codec.encode` ends with the longest item."""
    assert encoded is not None
    tokens = spec.frames(batch["audio"].shape[-1]) * spec.tokens_per_frame
    return F.pad(encoded, (0, tokens - encoded.shape[-1]), value=padding)
