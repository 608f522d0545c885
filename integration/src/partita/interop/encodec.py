"""Adapters of transformers' EncodecModel, EnCodec (arXiv 2210.13438), with and without chunks."""

from functools import reduce
from typing import Any

import torch
from partita_blocks import overlap_add
from partita_core import Chain, LatentSpec, PartitaError, StatefulStream, Stream
from partita_core.codec import values_or_codes
from torch import Tensor, nn
from torch.nn import functional as F

from ._common import ExternalCodec, audio_spec, drop_levels, frame_context, look_up, mirrored, seanet_padding


class _Encodec(ExternalCodec):
    """Networks and codebook look-up of both variants."""

    quantizer: nn.Module

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = model.encoder, model.quantizer, model.decoder
        self.audio_spec = audio_spec(model.config.sampling_rate, model.config.audio_channels)

    def quantize(self, hidden: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """Quantize hidden frames to values and codes."""
        quantizer: Any = self.quantizer
        codes = drop_levels(quantizer.encode(hidden).transpose(0, 1), num_quantizers)
        return self._look_up(codes), codes

    def _look_up(self, codes: Tensor) -> Tensor:
        quantizer: Any = self.quantizer
        levels = zip(quantizer.layers, codes.unbind(1))
        return reduce(torch.add, (look_up(level.codebook.embed, row) for level, row in levels))

    def synthesize(self, values: Tensor) -> Tensor:
        """Decode values to audio; see `ExternalCodec`."""
        return self.decoder(values)


class EncodecCodec(_Encodec):
    """Adapter of EnCodec without chunks, as at 24 kHz; `values` are the sum of the levels' codebook vectors.

    Its LSTMs depend on the entire past: the context is unbounded, and streams and tiles carry the state.

    Args:
        model: transformers' `EncodecModel` whose config has no `chunk_length_s`.

    Attributes:
        quantizer: residual quantizer.

    Raises:
        PartitaError: the model normalizes its input.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        config = model.config
        if config.normalize:
            raise PartitaError("this EncodecModel has normalize=True without chunk_length_s and scales entire files")
        self._config = config
        sizes = (config.codebook_size,) * config.num_quantizers
        self.latent_spec = LatentSpec(config.hidden_size, config.sampling_rate, config.hop_length, codebook_sizes=sizes)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """Encode to codes and their values; see `Codec`."""
        return self.quantize(self.encoder(audio), num_quantizers)

    def encode_stream(self, layout: Tensor, *, num_quantizers: int | None, width: int) -> Stream:
        """Stream of convolutions, the LSTM with its state, convolutions and the quantizer; see `Codec`."""
        if self._config.norm_type == "time_group_norm":
            return super().encode_stream(layout, num_quantizers=num_quantizers, width=width)
        before, lstm, after = _split(self.encoder)
        hop = self.latent_spec.hop
        return Chain(
            self._bounded(before, hop, 1, self._context(before, hop, 1), width),
            self._stepped(lstm, len(layout), width),
            self._bounded(lambda x: self.quantize(after(x), num_quantizers), 1, 1, self._context(after, 1, 1), width),
        )

    def decode_stream(self, layout: Tensor, *, sampler: Any, seeds: Tensor, width: int) -> Stream:
        """Stream of convolutions, the LSTM with its state, and convolutions; see `Codec`."""
        if self._config.norm_type == "time_group_norm":
            return super().decode_stream(layout, sampler=sampler, seeds=seeds, width=width)
        before, lstm, after = _split(self.decoder)
        hop = self.latent_spec.hop

        def begin(content: Tensor) -> Tensor:
            return before(self.values_of(*values_or_codes(content), sampler))

        return Chain(
            self._bounded(begin, 1, 1, self._context(before, 1, 1), width),
            self._stepped(lstm, len(layout), width),
            self._bounded(after, 1, hop, self._context(after, 1, hop), width),
        )

    def _context(self, network: nn.Module, units_in: int, units_out: int) -> tuple[int, int]:
        return mirrored(frame_context(network, units_in, units_out, seanet_padding(self._config)), self._config)

    def _stepped(self, lstm: Any, batch_size: int, width: int) -> StatefulStream:
        parameter = self._parameter()
        return StatefulStream(
            _Recurrent(lstm), batch_size, layout=None, device=parameter.device, dtype=parameter.dtype, width=width
        )


class ChunkedEncodecCodec(_Encodec):
    """EnCodec in overlapping chunks, each scaled to unit RMS, as at 48 kHz.

    A frame is one stride of chunks (0.99 s); its tokens are those of the full chunk (150), and its scale is stored in
    `Latents.gain`, next to values and codes. The last chunk is padded with zeros, as by EncodecFeatureExtractor.

    Attributes:
        quantizer: its residual quantizer.
    """

    has_gain = True

    def __init__(self, model: Any) -> None:
        """Wrap a transformers `EncodecModel` whose config has a `chunk_length_s`."""
        super().__init__(model)
        config = model.config
        self._chunk, self._normalize = config.chunk_length, config.normalize
        hop = config.chunk_stride or self._chunk
        tokens = -(-self._chunk // config.hop_length)
        self._decoded = tokens * config.hop_length
        sizes = (config.codebook_size,) * config.num_quantizers
        self.latent_spec = LatentSpec(config.hidden_size, config.sampling_rate, hop, tokens, codebook_sizes=sizes)
        self.encode_context = (0, -(-(self._chunk - hop) // hop))
        self.decode_context = (-(-(self._decoded - hop) // hop), 0)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """Codes of each chunk, and their values with the scale of the chunk as the last channel; see `Codec`.

        The scale is the RMS of the mean of the channels, or 1 if the model does not normalize.
        """
        chunks, batch = self._chunks(audio), len(audio)
        gain = torch.ones_like(chunks[:, 0, :, 0])
        if self._normalize:
            gain = chunks.mean(1).square().mean(-1).sqrt() + 1e-8
        scaled = chunks / gain[:, None, :, None]
        values, codes = self.quantize(self.encoder(scaled.transpose(1, 2).flatten(0, 1)), num_quantizers)
        scales = gain.repeat_interleave(self.latent_spec.tokens_per_frame, dim=-1)
        return torch.cat([_joined(values, batch), scales[:, None]], dim=1), _joined(codes, batch)

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Chunks at their scale, cross-faded where they overlap; see `Codec`."""
        values = self.values_of(values, codes, sampler)
        values, gain = values[:, :-1], values[:, -1, :: self.latent_spec.tokens_per_frame]
        hop, tokens = self.latent_spec.hop, self.latent_spec.tokens_per_frame
        chunks = values.unflatten(-1, (-1, tokens)).transpose(1, 2)
        decoded = self.synthesize(chunks.flatten(0, 1)).unflatten(0, chunks.shape[:2]).transpose(1, 2)
        window = _triangle(self._decoded).to(decoded)
        audio = overlap_add(decoded * gain[:, None, :, None] * window, hop)
        weight = overlap_add(window.expand(chunks.shape[1], -1), hop)
        return (audio / weight)[..., : chunks.shape[1] * hop]

    def _chunks(self, audio: Tensor) -> Tensor:
        """`(batch, channels, hop * frames)` as chunks `(batch, channels, frames, samples)`."""
        return F.pad(audio, (0, self._chunk - self.latent_spec.hop)).unfold(-1, self._chunk, self.latent_spec.hop)


class _Recurrent:
    """An EncodecLSTM, `lstm(x) + x`, as a streamable part."""

    def __init__(self, layer: Any) -> None:
        self._lstm: nn.LSTM = layer.lstm

    def init_state(
        self, batch_size: int, *, layout: Tensor | None = None, device: torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(self._lstm.num_layers, batch_size, self._lstm.hidden_size, device=device, dtype=dtype)
        return zeros, zeros

    def step(self, x: Tensor, state: Any, *, last: bool = False) -> tuple[Tensor, Any]:
        if not x.shape[-1]:
            return x, state
        y, state = self._lstm(x.permute(2, 0, 1), state)
        return y.permute(1, 2, 0) + x, state


def _split(network: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Layers before the LSTM, the LSTM, and layers after it."""
    layers = list(network.layers)
    at = next(i for i, layer in enumerate(layers) if hasattr(layer, "lstm"))
    return nn.Sequential(*layers[:at]), layers[at], nn.Sequential(*layers[at + 1 :])


def _joined(chunks: Tensor, batch: int) -> Tensor:
    """Tokens of chunks `(batch * frames, rows, tokens)` as `(batch, rows, frames * tokens)`."""
    return chunks.unflatten(0, (batch, -1)).transpose(1, 2).flatten(-2)


def _triangle(size: int) -> Tensor:
    """Triangular window of a chunk, positive everywhere."""
    return 0.5 - (torch.linspace(0, 1, size + 2, dtype=torch.float64)[1:-1] - 0.5).abs()
