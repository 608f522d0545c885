"""Decoding latents of any length in constant memory."""

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
    """Decode one item tile by tile; the pieces joined equal the output of `Codec.decode`.

    Args:
        codec: the model.
        latents: latents of one item, normalized or not.
        layout: channel layout of the output; None for the encoded one.
        sampler: sampler of a denoising decoder; None for its default.
        seed: seed of the decoder's noise.

    Yields:
        Audio `(channels, samples)`, in order; in one piece if it fits into a tile, or the model has no finite context.

    Raises:
        PartitaError: there are several items, the latents belong to another space, or the layout is not available.
    """
    if len(latents) != 1:
        raise PartitaError(f"these are latents of {len(latents)} recordings; pass one of them, latents[i]")
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
    """The frames from `start` to `stop`, as far as they exist."""
    k, hop = latents.spec.tokens_per_frame, latents.spec.hop
    tokens = slice(start * k, stop * k)
    return replace(
        latents,
        values=None if latents.values is None else latents.values[..., tokens],
        codes=None if latents.codes is None else latents.codes[..., tokens],
        gain=None if latents.gain is None else latents.gain[..., start:stop],
        audio_lengths=latents.audio_lengths.clamp(max=stop * hop) - start * hop,
    )
