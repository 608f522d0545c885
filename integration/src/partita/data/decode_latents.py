"""Decoding latents of any length in flat memory."""

from collections.abc import Iterator
from dataclasses import replace

from partita_core import ChannelLayout, Codec, Latents, PartitaError, Sampler, StreamDecoder, UnboundedError
from torch import Tensor


def decode_pieces(
    codec: Codec,
    latents: Latents,
    *,
    layout: ChannelLayout | str | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Decodes one item a tile at a time; the pieces joined are what `Codec.decode` makes of it.

    Args:
        codec: the model.
        latents: of one item, normalized or not.
        layout: wanted; None for the one that was encoded.
        sampler: how a denoising decoder is run; None for its default.
        seed: of the noise.

    Yields:
        Audio `(channels, samples)`, in order; all at once where it fits in a tile, or the model sees the whole.

    Raises:
        PartitaError: the latents are several, or of another space, or the layout cannot be had of them.
    """
    if len(latents) != 1:
        raise PartitaError(f"these are latents of {len(latents)} recordings; take one, latents[i]")
    settings = {"sampler": sampler, "seed": seed}
    tile, frames = codec.tile_frames, int(latents.frames[0])
    stream = None
    if frames > tile:
        try:
            stream = StreamDecoder(codec, layout=latents.layouts()[0] if layout is None else layout, **settings)
        except UnboundedError:
            pass
    if stream is None:
        yield codec.decode(latents, layout=layout, **settings)[0]
        return
    for start in range(0, frames, tile):
        yield stream.push(_part(latents, start, start + tile), last=start + tile >= frames)[0]


def _part(latents: Latents, start: int, stop: int) -> Latents:
    """The frames from `start` to `stop`, as far as there are any."""
    k, hop = latents.spec.tokens_per_frame, latents.spec.hop
    tokens = slice(start * k, stop * k)
    return replace(
        latents,
        values=None if latents.values is None else latents.values[..., tokens],
        codes=None if latents.codes is None else latents.codes[..., tokens],
        gain=None if latents.gain is None else latents.gain[..., start:stop],
        audio_lengths=latents.audio_lengths.clamp(max=stop * hop) - start * hop,
    )
