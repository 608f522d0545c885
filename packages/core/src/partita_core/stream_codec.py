"""Encoding and decoding while the audio arrives, or faster than a file fits in memory."""

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
    """Encodes one recording piece by piece; the pieces joined equal `Codec.encode` of the whole.

    Attributes:
        latency: samples that may be held back.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        layout: ChannelLayout | str | int,
        num_quantizers: int | None = None,
        width: int | None = None,
    ) -> None:
        """Starts a recording.

        Args:
            codec: the model, of bounded context or with a state.
            layout: of the recording.
            num_quantizers: levels of codes; None for all.
            width: frames that one call of the network takes at most; None for a tile of `codec.tile_seconds`.

        Raises:
            PartitaError: the codec cannot be streamed, or does not take the layout.
        """
        if num_quantizers is not None:
            resolve_num_quantizers(num_quantizers, len(codec.latent_spec.codebook_sizes), "this model")
        self._codec = codec
        self._layout = ChannelLayout.parse(layout)
        known = torch.tensor([network_layout(self._layout, codec.audio_spec.layouts)])
        self._whole = FrameAligner(codec.latent_spec.hop)
        self._stream = codec.encode_stream(known, num_quantizers=num_quantizers, width=width or codec.tile_frames)
        self.latency = self._whole.latency + self._stream.latency
        self._pushed = self._emitted = 0
        self._ended = False

    @torch.no_grad()
    def push(self, audio: Tensor, *, last: bool = False) -> Latents:
        """Takes `(1, channels, samples)`, possibly none, and returns the frames that are final, possibly none.

        Raises:
            PartitaError: the stream has ended, the audio does not fit the layout or is not finite, or a recording
                ends with no sample.
        """
        codec, audio = self._codec, as_audio(audio)
        if len(audio) != 1:
            raise PartitaError(f"a stream encodes one recording, and this is a batch of {len(audio)}")
        if not torch.isfinite(audio).all():
            raise PartitaError("the audio has samples that are not finite (NaN or infinite)")
        self._ended = _continue(self._ended, last)
        self._pushed += audio.shape[-1]
        if last and not self._pushed:
            raise PartitaError("the recording has no samples")
        parameter = codec._parameter()
        with torch.autocast(parameter.device.type, enabled=False):
            x = to_network(audio.to(parameter), self._layout, codec.audio_spec.layouts)
            values, codes, gain = self._stream.push(self._whole.push(x, last=last), last=last)
        tokens = (values if values is not None else codes).shape[-1]
        samples = tokens // codec.latent_spec.tokens_per_frame * codec.latent_spec.hop
        samples = min(samples, self._pushed - self._emitted)
        self._emitted += samples
        return codec._latents(values, codes, gain, torch.tensor([samples]), torch.tensor([int(self._layout)]))


class StreamDecoder:
    """Decodes one recording piece by piece; the pieces joined equal `Codec.decode` of the whole.

    Attributes:
        latency: samples that may be held back.
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
        """Starts a recording.

        Args:
            codec: the model.
            layout: wanted.
            sampler: how a denoising decoder is run; None for its default.
            seed: of the noise.
            width: frames that one call of the network takes at most; None for a tile of `codec.tile_seconds`.

        Raises:
            PartitaError: the codec cannot be streamed, or does not make the layout.
        """
        self._codec = codec
        self._target = ChannelLayout.parse(layout)
        known, names = decoder_layouts(codec.audio_spec, [self._target], [self._target])
        self._known = names[0]
        self._stream = codec.decode_stream(
            known, sampler=sampler, seeds=as_seeds(seed, 1), width=width or codec.tile_frames
        )
        self.latency = self._stream.latency
        self._owed = 0
        self._ended = False

    @torch.no_grad()
    def push(self, latents: Latents, *, last: bool = False) -> Tensor:
        """Takes the next frames of one item, possibly none, and returns `(1, channels, samples)` that are final.

        Raises:
            PartitaError: the stream has ended, or the latents are several, or of another space or layout.
        """
        codec = self._codec
        latents = codec.check_latents(latents, piece=True)
        if len(latents) != 1:
            raise PartitaError(f"a stream decodes one item, these latents are {len(latents)}; take latents[i]")
        self._ended = _continue(self._ended, last)
        decoder_layouts(codec.audio_spec, latents.layouts(), [self._target])
        content = codec._content(latents)
        self._owed += int(latents.audio_lengths[0])
        parameter = codec._parameter()
        content = content.to(parameter) if content.is_floating_point() else content.to(parameter.device)
        with torch.autocast(parameter.device.type, enabled=False):
            audio = self._stream.push(content, last=last)[..., : self._owed]
        self._owed -= audio.shape[-1]
        return from_network(upcast(audio), self._known, self._target)


def _continue(ended: bool, last: bool) -> bool:
    if ended:
        raise PartitaError("this stream has ended; start another for the next recording")
    return last
