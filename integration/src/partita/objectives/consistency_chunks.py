"""Windows of consecutive chunks, the unit that consistency training denoises."""

from typing import NamedTuple

import torch
from partita_core import DenoisingDecoder, convert_pairs, upcast
from torch import Tensor

from partita.data import Batch


class ChunkWindows(NamedTuple):
    """Windows of `w` consecutive chunks each, stacked in the batch dimension.

    Attributes:
        clean: `(windows, C, F, w * T)`, representation of the target.
        features: conditioning features of the decoder, each `(windows, w, ...)`.
        counted: `(windows, w)`, 1 for chunks that contain audio, 0 for chunks of padding.
    """

    clean: Tensor
    features: tuple[Tensor, ...]
    counted: Tensor


def chunk_windows(decoder: DenoisingDecoder, hidden: Tensor, batch: Batch) -> ChunkWindows:
    """All windows of `decoder.window` consecutive chunks in a batch, in steps of one chunk.

    Args:
        decoder: decoder that denoises the windows.
        hidden: `(batch, dim, tokens)` input of the decoder.
        batch: batch with audio, lengths and layouts.
    """
    audio, chunk = batch["audio"], decoder.hop * decoder.frames_per_chunk
    features = decoder.condition(hidden, batch["target_layout"])
    with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
        clean = decoder.representation(convert_pairs(audio, batch["layout"], batch["target_layout"]))
    starts = torch.arange(0, audio.shape[-1], chunk, device=audio.device)
    counted = (starts < batch["audio_lengths"].to(audio.device)[:, None]).to(audio.dtype)
    window, frames = decoder.window, chunk // decoder.representation.hop
    return ChunkWindows(
        _windows(clean, window * frames, frames, dim=-1),
        tuple(_windows(feature, window, 1, dim=1) for feature in features),
        _windows(counted, window, 1, dim=1),
    )


def single_chunks(x: Tensor, counted: Tensor) -> Tensor:
    """Split windows `(windows, C, F, w * T)` into chunks `(windows * w, C, F, T)`, in at least float32."""
    return upcast(x).unflatten(-1, (counted.shape[1], -1)).movedim(-2, 1).flatten(0, 1)


def _windows(x: Tensor, size: int, hop: int, *, dim: int) -> Tensor:
    """All windows of `size` along `dim` in steps of `hop`, stacked in the batch dimension."""
    return torch.cat([x.narrow(dim, start, size) for start in range(0, x.shape[dim] - size + 1, hop)])
