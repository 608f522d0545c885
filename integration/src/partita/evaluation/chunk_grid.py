"""Chunk lengths of codecs that decode in chunks, for metrics that need them."""

from collections.abc import Mapping

from partita_core import Autoencoder, Codec, DenoisingDecoder, PartitaError


def chunk_samples(codec: Codec) -> int | None:
    """Samples per chunk, from one seam to the next, at the codec's sample rate; None if it decodes without chunks."""
    decoder = codec.decoder if isinstance(codec, Autoencoder) else None
    return decoder.hop * decoder.frames_per_chunk if isinstance(decoder, DenoisingDecoder) else None


def chunk_grid(codecs: Mapping[str, Codec], rate: int) -> float:
    """Samples per chunk at `rate` Hz, common to all models that decode in chunks.

    Raises:
        PartitaError: no model decodes in chunks, or their chunks differ.
    """
    found = {
        name: chunk * rate / codec.audio_spec.sample_rate
        for name, codec in codecs.items()
        if (chunk := chunk_samples(codec)) is not None
    }
    if not found:
        raise PartitaError("no model decodes in chunks; set the chunk in samples, such as seam_excess:chunk=32768")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {chunk:g}" for name, chunk in found.items())
        remedy = "set one, such as drift:chunk=32768"
        raise PartitaError(f"the models' chunks differ (samples at {rate} Hz: {listed}); {remedy}")
    return next(iter(found.values()))
