"""A codec: what objectives, evaluation, corpus encoding and the command line depend on."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ._checks import Layouts, as_seeds, check_audio, decoder_layouts, known_layouts, layout_list
from .arrays import as_integers, as_tensor
from .codes import check_codes, resolve_num_quantizers
from .errors import PartitaError, short_repr
from .fingerprints import Named
from .latents import Latents
from .layouts import ChannelLayout, from_network, network_layout, to_network
from .precision import Precision, check_precision, upcast
from .roles import Context
from .specs import AudioSpec, LatentSpec
from .streams import Stream, TiledStream, UnboundedError


class Codec(Named, ABC):
    """Audio to latents and back, for any batch of any lengths and layouts.

    A codec defines two primitives over equal-length batches of whole frames. `encode` and `decode` are final: layouts,
    padding, grouping by frame count, splitting, tiling and trimming happen here and nowhere else, so that no item's
    result depends on its neighbors or on where a file was cut.

    Attributes:
        audio_spec: the audio the network sees.
        latent_spec: the latents it makes.
        encode_context: frames to either side that `encode_frames` sees of the input; None where unbounded.
        decode_context: likewise for `decode_frames`.
        max_batch_size: items that go through the network at a time; a matter of memory, not of results.
        tile_seconds: audio that goes through the network at a time, all items of a batch together; likewise.
    """

    audio_spec: AudioSpec
    latent_spec: LatentSpec
    encode_context: Context = (None, None)
    decode_context: Context = (None, None)
    max_batch_size: int = 16
    tile_seconds: float = 30.0

    @abstractmethod
    def encode_frames(
        self, audio: Tensor, layout: Tensor, num_quantizers: int | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Encodes `(batch, channels, hop * frames)` to values `(batch, dim, frames * K)`, codes, or both."""

    @abstractmethod
    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Decodes values, or codes where values are None, to exactly `(batch, channels, hop * frames)`."""

    def gains(self, audio: Tensor) -> Tensor | None:
        """The scale `(batch, frames)` that `encode_frames` takes out of network audio; None for the many that do not.

        It is kept in `Latents.gain`. A codec that overrides this takes it back, as the argument `gain` of
        `decode_frames`.
        """
        return None

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` of codes `(batch, num_quantizers, tokens)`.

        Raises:
            PartitaError: the codec has no quantizer, or a code is none of its own; see `check_codes`.
        """
        raise PartitaError(f"{type(self).__name__} has no quantizer: there are no codes to look up")

    def check_codes(self, codes: Any) -> Tensor:
        """Codes as int64, each of its codebook; see `partita_core.check_codes`."""
        return check_codes(codes, self.latent_spec.codebook_sizes)

    def project(self, values: Tensor) -> Tensor:
        """Values `(batch, dim, tokens)` brought back to where this codec's latents lie; see `Bottleneck.project`."""
        values = as_tensor(values, "values")
        return values.clamp(-1, 1) if self.latent_spec.bounded else values

    def latents(
        self,
        values: Any = None,
        *,
        codes: Any = None,
        lengths: Tensor | Sequence[int] | None = None,
        layout: Layouts | None = None,
        gain: Any = None,
        normalized: bool = False,
    ) -> Latents:
        """Values or codes from elsewhere as latents of this model, to be decoded, saved or normalized.

        Args:
            values: `(batch, dim, frames * K)`; or None.
            codes: `(batch, num_quantizers, frames * K)`; or None.
            lengths: number of audio samples of each item; None for whole frames.
            layout: layout of each item, or one for all; None for the only one that the model knows.
            gain: `(batch, frames)`, for a codec that scales each frame.
            normalized: the values are on the scale of `Latents.normalize`.

        Raises:
            PartitaError: shapes do not fit the model, or a number is out of range; see `Latents.check`.
        """
        content = [as_tensor(x, name) for x, name in ((values, "values"), (codes, "codes")) if x is not None]
        if any(x.dim() != 3 for x in content):
            raise PartitaError(f"values or codes are {tuple(content[0].shape)}; (batch, channels, tokens) is expected")
        if content and lengths is None:
            batch, _, tokens = content[0].shape
            lengths = [tokens // self.latent_spec.tokens_per_frame * self.latent_spec.hop] * batch
        if layout is None:
            layout = known_layouts(self.audio_spec, None, 1)[0]
        lengths = as_integers([] if lengths is None else lengths, "lengths")
        if lengths.dim() != 1:
            raise PartitaError(f"lengths are {short_repr(lengths.tolist())}; one for each item is expected")
        layouts = layout_list(layout, len(lengths))
        for item in layouts:
            network_layout(item, self.audio_spec.layouts)
        codes_id = None if codes is None else self.codes_id
        spec, layouts = self.latent_spec, torch.tensor(layouts, dtype=torch.int64)
        latents = Latents(values, codes, lengths, layouts, spec, self.space_id, codes_id, gain, normalized)
        latents.check()
        return latents

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

        Runs without gradients, without autocast, in the dtype of the weights. Arrays and nested lists are taken as well
        as tensors.

        Args:
            audio: `(batch, channels, samples)` at `audio_spec.sample_rate`, in [-1, 1].
            lengths: number of samples of each item; None where all are full. Samples past an item's end are ignored.
            layout: layout of each item, or one for all; None means mono for one channel and stereo for two.
            num_quantizers: number of levels of codes to compute; None for all.

        Raises:
            PartitaError: the audio is empty, not finite, or of a layout the model does not take.
        """
        audio, lengths, layouts = check_audio(self.audio_spec, audio, lengths, layout)
        if num_quantizers is not None:
            resolve_num_quantizers(num_quantizers, len(self.latent_spec.codebook_sizes), "this model")
        hop, tokens = self.latent_spec.hop, self.latent_spec.tokens_per_frame
        frames = -(-lengths // hop)
        parameter = self._parameter()

        def network_audio(items: list[int]) -> Tensor:
            whole = int(frames[items[0]]) * hop
            rows = []
            for i in items:
                item = audio[i, : _width(layouts[i], audio), : int(lengths[i])]
                item = to_network(item.to(parameter), layouts[i], self.audio_spec.layouts)
                rows.append(F.pad(item, (0, whole - item.shape[-1])))
            return torch.stack(rows)

        known = torch.tensor([network_layout(item, self.audio_spec.layouts) for item in layouts])
        results: dict[int, tuple[Tensor | None, ...]] = {}
        with torch.autocast(parameter.device.type, enabled=False):
            for items in self._groups(frames):
                batch, count = network_audio(items), int(frames[items[0]])
                encoded = self._run(
                    batch,
                    count,
                    lambda x, items=items: self._encode_content(x, known[items], num_quantizers),
                    partial(self.encode_stream, known[items], num_quantizers=num_quantizers),
                )
                for row, i in enumerate(items):
                    results[i] = tuple(None if tensor is None else tensor[row] for tensor in encoded)
        longest = int(frames.max()) * tokens
        parts = zip(*(results[i] for i in range(len(lengths))))
        values, codes, gain = (_stack(rows, longest, fill) for rows, fill in zip(parts, (0, -1, 0)))
        return self._latents(values, codes, gain, lengths, torch.tensor(layouts, dtype=torch.int64))

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
            latents: latents of this model's space; codes are used only where there are no values.
            layout: layout wanted of each item, or one for all; None for the layout that was encoded.
            sampler: sampler of a denoising decoder; None for its default.
            seed: noise seed, one for the batch or one per item.

        Returns:
            `(batch, c, max(audio_lengths))`, at least float32, zero past an item's end; c is 1 where every item is
            mono, else 2, with mono repeated.

        Raises:
            PartitaError: the latents are of another space, or hold numbers that `Latents.load` would not take; or the
                layout cannot be had from what was encoded.
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
        content = self._content(latents)
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
                    audio[i, :, : int(lengths[i])] = item  # one channel fills both
        return audio

    # ------------------------------------------------------------------ streams over the primitives

    def encode_stream(self, layout: Tensor, *, num_quantizers: int | None, width: int) -> Stream:
        """A stream from whole frames of network audio to (values, codes, gain), at most `width` frames a call.

        The gain has as many steps as the values: each frame's, once for each of its tokens.

        Raises:
            UnboundedError: the codec's context is unbounded.
        """
        return self._bounded(
            lambda x: self._encode_content(x, layout, num_quantizers),
            self.latent_spec.hop,
            self.latent_spec.tokens_per_frame,
            self.encode_context,
            width,
        )

    def decode_stream(self, layout: Tensor, *, sampler: Any, seeds: Tensor, width: int) -> Stream:
        """A stream from whole frames of values, or of codes, to network audio, at most `width` frames a call.

        A gain travels as one more channel of the values.

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
            raise UnboundedError(f"{type(self).__name__} sees unbounded context: it cannot be streamed")
        hop = self.latent_spec.hop
        return TiledStream(fn, units_in=units_in, units_out=units_out, context=(left, right), hop=hop, width=width)

    def _encode_content(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor | None, ...]:
        gain = self.gains(audio)
        gain = None if gain is None else gain.repeat_interleave(self.latent_spec.tokens_per_frame, dim=-1)
        return *self.encode_frames(audio, layout.to(audio.device), num_quantizers), gain

    def _content(self, latents: Latents) -> Tensor:
        """What is decoded, as one tensor: values, with the gain if there is one, or codes where there are none."""
        content = latents.codes if latents.values is None else latents.values
        assert content is not None
        if latents.gain is None:
            return content
        if latents.values is None:
            content = self.codes_to_values(content.to(self._parameter().device))
        gain = latents.gain.repeat_interleave(self.latent_spec.tokens_per_frame, dim=-1)
        return torch.cat([content, gain.unsqueeze(1).to(content)], dim=1)

    def _decode_content(self, content: Tensor, layout: Tensor, sampler: Any, seeds: Tensor) -> Tensor:
        layout, spec = layout.to(content.device), self.latent_spec
        if not content.is_floating_point():
            return self.decode_frames(None, content, layout, sampler, seeds)
        values, gain = content[:, : spec.dim], content[:, spec.dim :, :: spec.tokens_per_frame]
        scale = {"gain": gain.squeeze(1)} if gain.shape[1] else {}
        return self.decode_frames(values, None, layout, sampler, seeds, **scale)

    def _run(self, batch: Tensor, frames: int, whole: Callable[..., Any], stream: Callable[..., Stream]) -> Any:
        """All at once where it fits in a tile or cannot be cut, else through the stream, in tiles."""
        width = max(1, self.tile_frames // len(batch))
        if frames <= width:
            return whole(batch)
        try:
            tiles = stream(width=width)
        except UnboundedError:
            return whole(batch)
        return tiles.push(batch, last=True)

    @property
    def tile_frames(self) -> int:
        """Frames that go through the network at a time, of all items of a batch together: those of `tile_seconds`."""
        return max(1, int(self.tile_seconds * self.latent_spec.frame_rate))

    def _groups(self, frames: Tensor) -> Iterator[list[int]]:
        """Items of equal frame count, at most `max_batch_size` at a time."""
        by_count: dict[int, list[int]] = defaultdict(list)
        for i, count in enumerate(frames.tolist()):
            by_count[count].append(i)
        for items in by_count.values():
            for start in range(0, len(items), self.max_batch_size):
                yield items[start : start + self.max_batch_size]

    # ------------------------------------------------------------------ inference only

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """Prepares the model for inference: eval mode, weights fixed, in the precision that is asked for.

        Its latents keep their name. It cannot be trained or saved any more.

        Args:
            precision: "float32" keeps results to 1e-4 of their RMS; "bf16" is faster where the processor has
                instructions for it, and good to about 40 dB.
            compile: also `torch.compile` the parts, anew for every shape that comes: a minute each, for work on
                clips of one length.

        Raises:
            PartitaError: it is to be compiled, and is not made of parts; or there is no such precision.
        """
        check_precision(precision)
        if compile:
            raise PartitaError(f"{type(self).__name__} is not made of parts that could be compiled")
        with self._fixed():
            return self.to(torch.bfloat16) if precision == "bf16" else self

    # ------------------------------------------------------------------ records and checks

    def _parameter(self) -> Tensor:
        """A floating tensor whose dtype and device are the model's."""
        floating = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return next(floating, torch.zeros(1))

    def _latents(
        self,
        values: Tensor | None,
        codes: Tensor | None,
        gain: Tensor | None,
        lengths: Tensor,
        layout: Tensor,
    ) -> Latents:
        codes_id = None if codes is None else self.codes_id
        gain = None if gain is None else gain[..., :: self.latent_spec.tokens_per_frame]
        return Latents(values, codes, lengths, layout, self.latent_spec, self.space_id, codes_id, gain)

    def check_latents(self, latents: Latents, *, piece: bool = False) -> Latents:
        """Latents that this model can decode, at the decoder's scale.

        Args:
            latents: the record.
            piece: the record is a piece of a stream, which may be empty.

        Raises:
            PartitaError: they are no `Latents`, or of another shape, space or quantizer, or have a gain that the model
                does not take, or a number that is out of range; see `Latents.check`.
        """
        if not isinstance(latents, Latents):
            kind = type(latents).__name__
            raise PartitaError(f"decoding takes Latents, and this is a {kind}; wrap values by model.latents(values)")
        latents = latents.denormalize()
        for name in ("dim", "sample_rate", "hop", "tokens_per_frame"):
            theirs, ours = getattr(latents.spec, name), getattr(self.latent_spec, name)
            if theirs != ours:
                raise PartitaError(f"these latents have {name} {theirs}, the model's have {ours}")
        if latents.space_id not in (None, self.space_id):
            raise PartitaError(f"these latents are of the space {latents.space_id}, the model's is {self.space_id}")
        if latents.values is None and latents.codes_id not in (None, self.codes_id):
            raise PartitaError(f"these codes are of the quantizer {latents.codes_id}, the model's is {self.codes_id}")
        scaled = type(self).gains is not Codec.gains
        if scaled != (latents.gain is not None):
            problem = (
                "have no gain, and this model scales each frame" if scaled else "have a gain, this model takes none"
            )
            raise PartitaError(f"these latents {problem}")
        if latents.values is None and not self.latent_spec.codebook_sizes:
            raise PartitaError(f"{type(self).__name__} has no quantizer: there are no codes to look up")
        sizes, ours = latents.spec.codebook_sizes, self.latent_spec.codebook_sizes
        if latents.values is None and sizes != ours:
            raise PartitaError(f"these codes are of codebooks {short_repr(sizes)}, the model's are {short_repr(ours)}")
        latents.check(piece=piece)
        return latents


def _width(layout: ChannelLayout, audio: Tensor) -> int:
    return audio.shape[1] if layout is ChannelLayout.MONO else layout.width


def _stack(rows: Sequence[Tensor | None], length: int, fill: int) -> Tensor | None:
    present = [F.pad(row, (0, length - row.shape[-1]), value=fill) for row in rows if row is not None]
    return torch.stack(present) if present else None
