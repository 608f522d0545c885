"""The codec interface, on which training, evaluation, corpus encoding and the command line depend."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ._checks import Layouts, as_seeds, check_audio, decoder_layouts, layout_list
from .codes import resolve_num_quantizers
from .errors import PartitaError
from .latent_space import LatentSpace
from .latents import Latents
from .layouts import ChannelLayout, from_network, network_layout, to_network
from .precision import Precision, check_precision, upcast
from .roles import Context
from .streams import Stream, TiledStream, UnboundedError


class Codec(LatentSpace, ABC):
    """Encode audio to latents and decode latents to audio.

    A codec implements two primitives over equal-length batches of full frames, `encode_frames` and `decode_frames`.
    `encode` and `decode` are final. They take batches of mixed lengths and channel layouts, of any size, and do all
    layout conversion, padding, grouping by frame count, tiling and trimming. The result for an item therefore depends
    neither on the rest of its batch nor on how a file is cut.

    Attributes:
        audio_spec: audio that the network takes and returns.
        latent_spec: latents that it makes.
        has_gain: True if each frame has its own scale. Values of the two primitives then have one more channel:
            the gain of a token's frame.
        encode_context: input frames to the left and right of a frame that `encode_frames` depends on; None if
            unbounded.
        decode_context: latent frames to the left and right of a frame that `decode_frames` depends on; None if
            unbounded.
        max_batch_size: maximum number of items per call of the network; affects memory, not results.
        tile_seconds: maximum duration per call of the network, summed over the batch; affects memory, not results.

    Example:
        >>> audio.shape  # batch, channels, samples; in [-1, 1] at codec.audio_spec.sample_rate
        torch.Size([2, 1, 8000])
        >>> latents = codec.encode(audio, lengths=[8000, 5000])
        >>> latents.values.shape  # batch, dim, frames
        torch.Size([2, 4, 500])
        >>> decoded = codec.decode(latents, seed=0)
        >>> decoded.shape
        torch.Size([2, 1, 8000])
    """

    encode_context: Context = (None, None)
    decode_context: Context = (None, None)
    max_batch_size: int = 16
    tile_seconds: float = 30.0

    @abstractmethod
    def encode_frames(
        self, audio: Tensor, layout: Tensor, num_quantizers: int | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Encode `(batch, channels, hop * frames)` to values `(batch, dim, frames * K)`, codes, or both."""

    @abstractmethod
    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Decode values, or codes if values are None, to exactly `(batch, channels, hop * frames)`."""

    # ------------------------------------------------------------------ encode and decode, final

    @torch.no_grad()
    def encode(
        self,
        audio: Tensor,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        layout: Layouts | None = None,
        num_quantizers: int | None = None,
    ) -> Latents:
        """Encode a batch of audio.

        Runs without gradients and without autocast, in the dtype of the weights. Arrays and nested lists are accepted
        as well as tensors.

        Args:
            audio: `(batch, channels, samples)` at `audio_spec.sample_rate`, in [-1, 1].
            lengths: number of samples of each item; None for full items. Samples past an item's end are ignored.
            layout: channel layout of each item, or one for all; None for mono (one channel) or stereo (two).
            num_quantizers: number of levels of codes to compute; None for all.

        Raises:
            PartitaError: the audio is empty, not finite, or of a layout that the model does not support.
        """
        audio, lengths, layouts = check_audio(self.audio_spec, audio, lengths, layout)
        if num_quantizers is not None:
            resolve_num_quantizers(num_quantizers, len(self.latent_spec.codebook_sizes), "this model")
        hop, tokens = self.latent_spec.hop, self.latent_spec.tokens_per_frame
        frames = -(-lengths // hop)
        known = torch.tensor([network_layout(item, self.audio_spec.layouts) for item in layouts])
        parameter = self._parameter()

        def network_audio(i: int) -> Tensor:
            item = audio[i, : _width(layouts[i], audio), : int(lengths[i])]
            item = to_network(item.to(parameter), layouts[i], self.audio_spec.layouts)
            return F.pad(item, (0, int(frames[i]) * hop - item.shape[-1]))

        results: dict[int, tuple[Tensor | None, ...]] = {}
        with torch.autocast(parameter.device.type, enabled=False):
            for items in self._groups(frames):
                encoded = self._run(
                    torch.stack([network_audio(i) for i in items]),
                    int(frames[items[0]]),
                    lambda x, items=items: self._encode_frames(x, known[items], num_quantizers),
                    partial(self.encode_stream, known[items], num_quantizers=num_quantizers),
                )
                for row, i in enumerate(items):
                    results[i] = tuple(None if tensor is None else tensor[row] for tensor in encoded)
        longest = int(frames.max()) * tokens
        parts = zip(*(results[i] for i in range(len(lengths))))
        values, codes = (_stack(rows, longest, fill) for rows, fill in zip(parts, (0, -1)))
        return self._latents(values, codes, lengths, torch.tensor(layouts, dtype=torch.int64))

    @torch.no_grad()
    def decode(
        self,
        latents: Latents,
        *,
        layout: Layouts | None = None,
        sampler: Any = None,
        seed: int | Sequence[int] | Tensor = 0,
    ) -> Tensor:
        """Decode to audio of exactly the length that was encoded.

        Args:
            latents: latents of this model; codes are used only if there are no values.
            layout: channel layout of each decoded item, or one for all; None for the layout that was encoded.
            sampler: sampler of a denoising decoder; None for its default.
            seed: noise seed, one for the batch or one per item.

        Returns:
            `(batch, c, max(audio_lengths))`, at least float32, zero past an item's end; c is 1 if every item is mono,
            else 2, with mono repeated.

        Raises:
            PartitaError: the latents are of another model or hold invalid numbers (see `Latents.check`), or the encoded
                layout cannot be converted to the requested one.
        """
        latents = self.check_latents(latents)
        source = latents.layouts()
        target = source if layout is None else layout_list(layout, len(latents))
        seeds = as_seeds(seed, len(latents))
        lengths, frames = latents.audio_lengths, latents.frames
        known, wanted = decoder_layouts(self.audio_spec, source, target)
        parameter = self._parameter()
        tokens = self.latent_spec.tokens_per_frame
        width = max(item.width for item in target)
        audio = torch.zeros(
            len(latents),
            width,
            int(lengths.max()),
            dtype=upcast(parameter[:0]).dtype,
            device=parameter.device,
        )
        content = self._content(latents, parameter.device)
        with torch.autocast(parameter.device.type, enabled=False):
            for items in self._groups(frames):
                count = int(frames[items[0]])
                batch = content[items, :, : count * tokens].to(parameter.device)
                batch = batch.to(parameter.dtype) if batch.is_floating_point() else batch
                decoded = self._run(
                    batch,
                    count,
                    lambda x, items=items: self._decode_content(x, known[items], sampler, seeds[items]),
                    partial(self.decode_stream, known[items], sampler=sampler, seeds=seeds[items]),
                )
                for row, i in enumerate(items):
                    item = from_network(upcast(decoded[row, :, : int(lengths[i])]), wanted[i], target[i])
                    audio[i, :, : int(lengths[i])] = item  # a single channel is repeated
        return audio

    # ------------------------------------------------------------------ streams over the primitives

    def encode_stream(self, layout: Tensor, *, num_quantizers: int | None, width: int) -> Stream:
        """Stream from full frames of network audio to (values, codes), at most `width` frames per call.

        Raises:
            UnboundedError: the codec's context is unbounded.
        """
        return self._bounded(
            lambda x: self._encode_frames(x, layout, num_quantizers),
            self.latent_spec.hop,
            self.latent_spec.tokens_per_frame,
            self.encode_context,
            width,
        )

    def decode_stream(self, layout: Tensor, *, sampler: Any, seeds: Tensor, width: int) -> Stream:
        """Stream from full frames of values, or of codes, to network audio, at most `width` frames per call.

        Raises:
            UnboundedError: the codec's context is unbounded.
        """
        return self._bounded(
            lambda x: self._decode_content(x, layout, sampler, seeds),
            self.latent_spec.tokens_per_frame,
            self.latent_spec.hop,
            self.decode_context,
            width,
        )

    def _bounded(self, fn: Any, units_in: int, units_out: int, context: Context, width: int) -> Stream:
        left, right = context
        if left is None or right is None:
            raise UnboundedError(
                f"{type(self).__name__} has unbounded context and cannot be streamed; encode or decode full recordings"
            )
        hop = self.latent_spec.hop
        return TiledStream(fn, units_in=units_in, units_out=units_out, context=(left, right), hop=hop, width=width)

    def _encode_frames(
        self, audio: Tensor, layout: Tensor, num_quantizers: int | None
    ) -> tuple[Tensor | None, Tensor | None]:
        return self.encode_frames(audio, layout.to(audio.device), num_quantizers)

    def _decode_content(self, content: Tensor, layout: Tensor, sampler: Any, seeds: Tensor) -> Tensor:
        values, codes = values_or_codes(content)
        return self.decode_frames(values, codes, layout.to(content.device), sampler, seeds)

    def _run(self, batch: Tensor, frames: int, fn: Callable[..., Any], stream: Callable[..., Stream]) -> Any:
        """Run on the full batch if it fits in one tile or cannot be tiled, else in tiles."""
        width = max(1, self.tile_frames // len(batch))
        if frames <= width:
            return fn(batch)
        try:
            tiles = stream(width=width)
        except UnboundedError:
            return fn(batch)
        return tiles.push(batch, last=True)

    @property
    def tile_frames(self) -> int:
        """Maximum number of frames per call of the network, summed over the batch: the frames of `tile_seconds`."""
        return max(1, int(self.tile_seconds * self.latent_spec.frame_rate))

    def _groups(self, frames: Tensor) -> Iterator[list[int]]:
        """Indices of items of equal frame count, at most `max_batch_size` per group."""
        by_count: dict[int, list[int]] = defaultdict(list)
        for i, count in enumerate(frames.tolist()):
            by_count[count].append(i)
        for items in by_count.values():
            for start in range(0, len(items), self.max_batch_size):
                yield items[start : start + self.max_batch_size]

    # ------------------------------------------------------------------ inference only

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """Prepare the model for inference: eval mode, frozen weights, the given precision.

        Its latents keep their fingerprints. Afterwards it cannot be trained or saved.

        Args:
            precision: "float32" matches the trained model to 1e-4 of the RMS; "bf16" is faster on processors with
                bfloat16 instructions, and accurate to about 40 dB.
            compile: also run `torch.compile` on the parts. Each new input shape takes about a minute to compile, so
                this pays off for clips of one length.

        Raises:
            PartitaError: the precision is unknown, or `compile` is set and the model has no parts to compile.
        """
        check_precision(precision)
        if compile:
            raise PartitaError(f"{type(self).__name__} has no parts to compile; call optimize() without compile")
        with self._frozen_for_inference():
            return self.to(torch.bfloat16) if precision == "bf16" else self

    def _parameter(self) -> Tensor:
        """A floating-point tensor with the dtype and device of the model."""
        floating = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return next(floating, torch.zeros(1))


def values_or_codes(content: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The input of a decoding stream as (values, None), or as (None, codes) if it holds integers."""
    return (content, None) if content.is_floating_point() else (None, content)


def _width(layout: ChannelLayout, audio: Tensor) -> int:
    return audio.shape[1] if layout is ChannelLayout.MONO else layout.width


def _stack(rows: Sequence[Tensor | None], length: int, fill: int) -> Tensor | None:
    present = [F.pad(row, (0, length - row.shape[-1]), value=fill) for row in rows if row is not None]
    return torch.stack(present) if present else None
