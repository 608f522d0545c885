"""Streaming encoders and decoders, for live audio and for recordings that do not fit in memory."""

from typing import Any

import torch
from torch import Tensor

from ._checks import as_audio, as_seeds, decoder_layouts
from .codec import Codec
from .codes import resolve_num_quantizers
from .errors import PartitaError
from .latents import Latents
from .layouts import ChannelLayout, from_network, network_layout, to_network
from .precision import upcast
from .streams import FrameAligner


class StreamEncoder:
    """Encode one recording piece by piece; the joined pieces equal `Codec.encode` of the full recording.

    Attributes:
        latency: maximum number of samples that have been pushed and not yet encoded.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        layout: ChannelLayout | str | int,
        num_quantizers: int | None = None,
        width: int | None = None,
    ) -> None:
        """Start a recording.

        Args:
            codec: codec of bounded context, or with a state.
            layout: channel layout of the recording.
            num_quantizers: number of levels of codes; None for all.
            width: maximum number of frames per call of the network; None for a tile of `codec.tile_seconds`.

        Raises:
            PartitaError: the codec cannot be streamed, or does not support the layout.
        """
        if num_quantizers is not None:
            resolve_num_quantizers(num_quantizers, len(codec.latent_spec.codebook_sizes), "this model")
        self._codec = codec
        self._layout = ChannelLayout.parse(layout)
        known = torch.tensor([network_layout(self._layout, codec.audio_spec.layouts)])
        self._aligner = FrameAligner(codec.latent_spec.hop)
        self._stream = codec.encode_stream(known, num_quantizers=num_quantizers, width=width or codec.tile_frames)
        self.latency = self._aligner.latency + self._stream.latency
        self._pushed = self._emitted = 0
        self._ended = False

    @torch.no_grad()
    def push(self, audio: Tensor, *, last: bool = False) -> Latents:
        """Push `(1, channels, samples)`, possibly 0 samples, and return the frames that are final, possibly 0.

        Raises:
            PartitaError: the stream has ended, the audio does not fit the layout or is not finite, or the recording
                ends with 0 samples.
        """
        codec, audio = self._codec, as_audio(audio, finite=True)
        if len(audio) != 1:
            raise PartitaError(f"a stream encodes one recording, got a batch of {len(audio)}; use a stream per item")
        self._ended = _check_open(self._ended, last)
        self._pushed += audio.shape[-1]
        if last and not self._pushed:
            raise PartitaError("the recording ends with 0 samples; push at least 1")
        parameter = codec._parameter()
        with torch.autocast(parameter.device.type, enabled=False):
            x = to_network(audio.to(parameter), self._layout, codec.audio_spec.layouts)
            values, codes = self._stream.push(self._aligner.push(x, last=last), last=last)
        tokens = (values if values is not None else codes).shape[-1]
        samples = tokens // codec.latent_spec.tokens_per_frame * codec.latent_spec.hop
        samples = min(samples, self._pushed - self._emitted)
        self._emitted += samples
        return codec._latents(values, codes, torch.tensor([samples]), torch.tensor([int(self._layout)]))


class StreamDecoder:
    """Decode one recording piece by piece; the joined pieces equal `Codec.decode` of the full recording.

    Attributes:
        latency: maximum number of samples whose latents have been pushed and that are not yet decoded.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        layout: ChannelLayout | str | int,
        sampler: Any = None,
        seed: int = 0,
        width: int | None = None,
    ) -> None:
        """Start a recording.

        Args:
            codec: codec of bounded context, or with a state.
            layout: channel layout of the decoded audio.
            sampler: sampler of a denoising decoder; None for its default.
            seed: noise seed.
            width: maximum number of frames per call of the network; None for a tile of `codec.tile_seconds`.

        Raises:
            PartitaError: the codec cannot be streamed, or does not support the layout.
        """
        self._codec = codec
        self._target = ChannelLayout.parse(layout)
        known, names = decoder_layouts(codec.audio_spec, [self._target], [self._target])
        self._known = names[0]
        self._stream = codec.decode_stream(
            known, sampler=sampler, seeds=as_seeds(seed, 1), width=width or codec.tile_frames
        )
        self.latency = self._stream.latency
        self._pending = 0
        self._ended = False

    @torch.no_grad()
    def push(self, latents: Latents, *, last: bool = False) -> Tensor:
        """Push the next frames of one item, possibly 0, and return the samples `(1, channels, samples)` that are final.

        Raises:
            PartitaError: the stream has ended, or the latents hold several items or are of another model or layout.
        """
        codec = self._codec
        latents = codec.check_latents(latents, piece=True)
        if len(latents) != 1:
            raise PartitaError(f"a stream decodes one item, got {len(latents)}; push latents[i] to a stream per item")
        self._ended = _check_open(self._ended, last)
        decoder_layouts(codec.audio_spec, latents.layouts(), [self._target])
        parameter = codec._parameter()
        content = codec._content(latents, parameter.device)
        self._pending += int(latents.audio_lengths[0])
        content = content.to(parameter) if content.is_floating_point() else content.to(parameter.device)
        with torch.autocast(parameter.device.type, enabled=False):
            audio = self._stream.push(content, last=last)[..., : self._pending]
        self._pending -= audio.shape[-1]
        return from_network(upcast(audio), self._known, self._target)


def _check_open(ended: bool, last: bool) -> bool:
    if ended:
        raise PartitaError("this stream has ended; start another for the next recording")
    return last
