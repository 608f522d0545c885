"""Codecs that decode in chunks: their grid, and how they are run."""

import copy
from collections.abc import Mapping

from partita_core import Autoencoder, Codec, Config, DenoisingDecoder, PartitaError, Sampler
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


def chunk_grid(codecs: Mapping[str, Codec], rate: int) -> float:
    """Samples from seam to seam, at `rate` Hz, of those of the models that decode in chunks.

    Raises:
        PartitaError: none does, or they differ.
    """
    found = {
        name: chunk * rate / codec.audio_spec.sample_rate
        for name, codec in codecs.items()
        if (chunk := chunk_samples(codec)) is not None
    }
    if not found:
        raise PartitaError("no model decodes in chunks; name samples from seam to seam, as seam_excess:chunk=32768")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {chunk:g}" for name, chunk in found.items())
        raise PartitaError(
            f"the models' chunks differ (samples at {rate} Hz: {listed}); name one, as drift:chunk=32768"
        )
    return next(iter(found.values()))


def known_chunk(config: Config, chunk: float | None) -> float:
    """The chunk that a metric's Config names.

    Raises:
        PartitaError: it names none.
    """
    if chunk is None:
        raise PartitaError(f"{config.tag.split('/')[1]} needs to know the chunk, in samples; set chunk")
    return chunk


def by_chunk(frames: Tensor, *, hop: int, chunk: int) -> Tensor:
    """Frames sorted into the whole chunks that they are centered in.

    Args:
        frames: `(..., 1 + samples // hop)`, frame t centered on sample `t * hop`.
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
