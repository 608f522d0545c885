"""Codecs that decode in chunks: their grid, and how they are run."""

import copy

from partita_core import Autoencoder, Codec, DenoisingDecoder, PartitaError, Sampler
from torch import Tensor


def chunk_samples(codec: Codec) -> int | None:
    """Samples of a chunk, between one seam and the next, at the codec's rate; None where it decodes without chunks."""
    decoder = codec.decoder if isinstance(codec, Autoencoder) else None
    return decoder.hop * decoder.frames_per_chunk if isinstance(decoder, DenoisingDecoder) else None


def with_sampler(codec: Codec, sampler: Sampler) -> Autoencoder:
    """The codec with another sampler as its default, so that several can be evaluated as systems; weights are shared.

    Raises:
        PartitaError: its decoder does not denoise.
    """
    if not isinstance(codec, Autoencoder) or not isinstance(codec.decoder, DenoisingDecoder):
        raise PartitaError(f"{type(codec).__name__} has no decoder that denoises, and takes no sampler")
    twin = copy.deepcopy(codec, {id(weight): weight for weight in (*codec.parameters(), *codec.buffers())})
    assert isinstance(twin.decoder, DenoisingDecoder)
    twin.decoder.sampler = sampler
    return twin


def by_chunk(frames: Tensor, *, hop: int, chunk: int) -> Tensor:
    """Frames sorted into the whole chunks that they are centred in.

    Args:
        frames: `(..., 1 + samples // hop)`, frame t centred on sample `t * hop`.
        hop: samples from frame to frame.
        chunk: samples of a chunk.

    Returns:
        `(..., samples // chunk, chunk // hop)`.

    Raises:
        PartitaError: a chunk is not whole frames.
    """
    if chunk % hop:
        raise PartitaError(f"a chunk of {chunk} samples is no multiple of the hop of {hop}; choose another hop")
    width = chunk // hop
    whole = (frames.shape[-1] - 1) // width
    return frames[..., : whole * width].unflatten(-1, (whole, width))
