"""Autoencoders: codecs assembled from an encoder, a bottleneck, a decoder and optionally a quantizer."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ._checks import Layouts, as_audio, batch_lengths, known_layouts
from ._fit import check_parts_fit, check_quantizer_fits
from .arrays import as_tensor
from .codec import Codec, values_or_codes
from .configs import to_dict
from .decoder_roles import Decoder, FeedForwardDecoder
from .errors import PartitaError
from .fingerprints import uncompiled_state, unwrap_compiled, weights_hash
from .layouts import ChannelLayout, convert_pairs
from .precision import Precision, check_precision, fold_parametrizations
from .ranges import Width
from .registry import Config, component_field, components, lookup
from .role_outputs import BottleneckOutput, Posterior
from .roles import Bottleneck, Context, Encoder, Quantizer, Role, sum_contexts
from .saving import Saved, config_of_part
from .settings import register
from .specs import AudioSpec, LatentSpec
from .streams import Chain, Stream


class Autoencoder(Codec, Saved):
    """A codec assembled from an encoder, a bottleneck, a decoder and optionally a quantizer.

    Training, encoding and decoding share one path: `decoder(bottleneck.expand(bottleneck(encoder(audio)).values))`.

    A quantizer can take the place of the bottleneck; latents are then the values of its codes. Attached as `quantizer`,
    it leaves the latents unchanged and adds codes to them.

    Example:
        >>> model = Autoencoder(encoder, bottleneck, decoder)
        >>> reconstruction, output = model(audio)  # the training path, with gradients
        >>> reconstruction.shape == audio.shape
        True
        >>> output.values.shape  # batch, dim, frames
        torch.Size([2, 4, 500])
        >>> latents = model.eval().encode(audio)  # the inference path, of any length
        >>> model.save_pretrained("model")
        >>> model = Autoencoder.from_pretrained("model")
    """

    def __init__(
        self, encoder: Encoder, bottleneck: Bottleneck, decoder: Decoder, quantizer: Quantizer | None = None
    ) -> None:
        """Assemble the parts.

        Raises:
            PartitaError: a part is not of its role, or parts do not fit: width, hop, tokens per frame, or context on
                tokens without order.
        """
        super().__init__()
        check_parts_fit(encoder, bottleneck, decoder, quantizer)
        self.encoder, self.bottleneck, self.decoder, self.quantizer = encoder, bottleneck, decoder, quantizer
        self.audio_spec = encoder.audio_spec
        self.latent_spec = _latent_spec(encoder, bottleneck)
        if quantizer is not None:
            check_quantizer_fits(self.latent_spec, quantizer)
            self.latent_spec = replace(self.latent_spec, codebook_sizes=quantizer.codebook_sizes)
        self.encode_context = sum_contexts(encoder.context, bottleneck.context, _context(quantizer))
        self.decode_context = sum_contexts(self._expand_context, decoder.context)
        self.tile_seconds = min(encoder.tile_seconds, decoder.tile_seconds)

    @property
    def _quantizing(self) -> Quantizer | None:
        """The quantizer, in either slot; a property, since an attribute would save its weights twice."""
        return self.bottleneck if isinstance(unwrap_compiled(self.bottleneck), Quantizer) else self.quantizer  # pyright: ignore

    @property
    def _expand_context(self) -> Context:
        return sum_contexts(_context(self._quantizing), self.bottleneck.expand_context)

    def forward(
        self,
        audio: Tensor,
        layout: Layouts | None = None,
        target_layout: Layouts | None = None,
        *,
        stochastic: bool | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        quantize: bool = True,
    ) -> tuple[Tensor, BottleneckOutput]:
        """Reconstruct audio with gradients: the training path of a feed-forward decoder.

        Args:
            audio: `(batch, channels, samples)` in the network's channels; the last frame is zero-padded.
            layout: channel layout of each item, or one for all; None if the network supports only one.
            target_layout: channel layout of the output; None for that of the input.
            stochastic: True to sample the bottleneck's noise; None for `self.training`.
            lengths: `(batch,)` int64, samples of each item before its padding; None if all items are full.
            quantize: False to decode the hidden frames in place of the values of a quantizer, for a first stage of
                training in which its codebooks adapt to latents that are still continuous.

        Returns:
            The reconstruction `(batch, channels, samples)`, and the bottleneck's output, which in training mode also
            has the losses of the decoder; see `loss_weights`.

        Raises:
            PartitaError: shapes, lengths or layouts do not fit the network, or the decoder is not feed-forward.
        """
        audio = as_audio(audio)
        padded, layout, target, valid, values, output = self._to_decoder(
            audio, layout, target_layout, stochastic=stochastic, lengths=lengths, quantize=quantize
        )
        decoder: Any = self.decoder
        if self.training and decoder.loss_weights:
            decoded, losses = decoder.reconstruct(values, target, convert_pairs(padded, layout, target), valid)
            output = output._replace(losses=output.losses | losses)
        else:
            decoded = decoder(values, target)
        return decoded[..., : audio.shape[-1]], output

    def own_losses(
        self,
        audio: Tensor,
        layout: Layouts | None = None,
        target_layout: Layouts | None = None,
        *,
        stochastic: bool | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        quantize: bool = True,
    ) -> BottleneckOutput:
        """Bottleneck's output with the losses of the bottleneck and of the decoder, without decoding to audio.

        Cheaper than `forward`, for a stage of training without losses on samples. Arguments and errors as in `forward`.
        """
        padded, layout, target, valid, values, output = self._to_decoder(
            as_audio(audio), layout, target_layout, stochastic=stochastic, lengths=lengths, quantize=quantize
        )
        decoder: Any = self.decoder
        losses = decoder.losses(values, target, convert_pairs(padded, layout, target), valid)
        return output._replace(losses=output.losses | losses)

    def _to_decoder(
        self,
        audio: Tensor,
        layout: Layouts | None,
        target_layout: Layouts | None,
        *,
        stochastic: bool | None,
        lengths: Tensor | Sequence[int] | None,
        quantize: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, BottleneckOutput]:
        """Padded audio, its layouts, those of the target, valid samples, decoder input, output of the bottleneck."""
        if not isinstance(unwrap_compiled(self.decoder), FeedForwardDecoder):
            kind = type(unwrap_compiled(self.decoder)).__name__
            raise PartitaError(
                f"{kind} is not feed-forward; call encode and decode, or train it with ConsistencyTraining"
            )
        padded, layout = self._network_input(audio, layout)
        target = layout if target_layout is None else self._layouts(target_layout, padded)
        valid = None if lengths is None else batch_lengths(lengths, len(padded), audio.shape[-1])
        tokens = None if valid is None else self.latent_spec.tokens(valid)
        hidden = self.encoder(padded, layout)
        output = self.bottleneck(hidden, stochastic=stochastic, lengths=tokens)
        if not quantize and isinstance(unwrap_compiled(self.bottleneck), Quantizer):
            output = output._replace(values=hidden.to(output.values.dtype))
        values = self.bottleneck.expand(output.values).to(padded.dtype)
        return padded, layout, target, valid, values, output

    @property
    def loss_weights(self) -> dict[str, float]:
        """Training weights of the losses of the bottleneck and of a feed-forward decoder, by name."""
        return self.bottleneck.loss_weights | getattr(self.decoder, "loss_weights", {})

    def posterior(self, audio: Tensor, layout: Layouts | None = None) -> Posterior:
        """Posterior distribution of the latents of audio; see `Bottleneck.posterior`.

        Args:
            audio: `(batch, channels, samples)` in the network's channels; the last frame is zero-padded.
            layout: channel layout of each item, or one for all; None if the network supports only one.

        Raises:
            PartitaError: shapes or layouts do not fit the network.
        """
        return self.bottleneck.posterior(self.encoder(*self._network_input(audio, layout)))

    def _network_input(self, audio: Any, layout: Layouts | None) -> tuple[Tensor, Tensor]:
        """Audio padded to full frames, and layouts, as the encoder takes them."""
        audio = as_audio(audio)
        batch, channels, samples = audio.shape
        if channels != self.audio_spec.channels or not batch or not samples:
            expected = f"(batch, {self.audio_spec.channels}, samples), at least 1 item of 1 sample, is expected"
            raise PartitaError(f"audio is {tuple(audio.shape)}; {expected}")
        audio = audio.to(self._parameter().dtype)
        missing = -samples % self.encoder.hop
        padded = F.pad(audio, (0, missing)) if missing else audio
        return padded, self._layouts(layout, padded)

    def _layouts(self, layout: Layouts | None, audio: Tensor) -> Tensor:
        return known_layouts(self.audio_spec, layout, len(audio)).to(audio.device)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor | None]:
        """Encode to values, and to codes if there is a quantizer; see `Codec`."""
        return self._quantize(self.encoder(audio, layout), num_quantizers)

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Decode values or codes to audio; see `Codec`."""
        return self.decoder.generate(self._expand(values, codes), layout, sampler=sampler, seeds=seeds)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Look up codes in the quantizer; see `Codec`."""
        if self._quantizing is None:
            return super().codes_to_values(codes)
        return self._quantizing.codes_to_values(codes)

    def project(self, values: Tensor) -> Tensor:
        """Project onto the latents of the bottleneck; see `Codec`."""
        return self.bottleneck.project(as_tensor(values, "values"))

    def encode_stream(self, layout: Tensor, *, num_quantizers: int | None, width: int) -> Stream:
        """Stream through the encoder's own stream; see `Codec`."""
        encoder = self.encoder.stream(layout, dtype=_dtype(self.encoder), width=width)
        context = sum_contexts(self.bottleneck.context, _context(self.quantizer))
        k = self.latent_spec.tokens_per_frame
        rest = self._bounded(lambda h: self._quantize(h, num_quantizers), k, k, context, width)
        return Chain(encoder, rest)

    def decode_stream(self, layout: Tensor, *, sampler: Any, seeds: Tensor, width: int) -> Stream:
        """Stream through the decoder's own stream; see `Codec`."""
        k = self.latent_spec.tokens_per_frame
        values = self._bounded(lambda x: self._expand(*values_or_codes(x)), k, k, self._expand_context, width)
        decoder = self.decoder.stream(layout, sampler=sampler, seeds=seeds, dtype=_dtype(self.decoder), width=width)
        return Chain(values, decoder)

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """Prepare for inference: fold weight norm and optimize encoder and decoder; see `Codec` and `Role.optimize`.

        Bottleneck and quantizer stay in float32. GenAE's encoder then runs fused kernels if the machine can build them.
        """
        check_precision(precision)
        with self._frozen_for_inference():
            fold_parametrizations(self)
            for part in (self.encoder, self.decoder):
                part.optimize(precision=precision, compile=compile)
        return self

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The `AutoencoderConfig` of the parts, the latent spec and the fingerprints; see `Saved`."""
        parts = {"encoder": self.encoder, "bottleneck": self.bottleneck, "decoder": self.decoder}
        parts |= {} if self.quantizer is None else {"quantizer": self.quantizer}
        configs = {name: config_of_part(part) for name, part in parts.items()}
        config = AutoencoderConfig(audio=self.audio_spec, latent_dim=self.latent_spec.dim, **configs)
        return config, self._saved_facts()

    def _quantize(self, hidden: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor | None]:
        quantizer = self._quantizing
        if quantizer is not None and quantizer is self.bottleneck:
            codes = quantizer.encode_codes(hidden, num_quantizers)
            return quantizer.codes_to_values(codes), codes
        values = self.bottleneck(hidden, stochastic=False).values
        codes = None if self.quantizer is None else self.quantizer.encode_codes(values, num_quantizers)
        return values, codes

    def _expand(self, values: Tensor | None, codes: Tensor | None) -> Tensor:
        if values is None:
            assert codes is not None
            values = self.codes_to_values(codes)
        return self.bottleneck.expand(values).to(_dtype(self.decoder))

    def _space_weights(self) -> dict[str, Tensor]:
        return uncompiled_state(self.encoder, "encoder.") | uncompiled_state(self.bottleneck, "bottleneck.")

    def _space_facts(self) -> Any:
        return self._described(self.encoder, self.bottleneck)

    def _codes_weights(self) -> dict[str, Tensor]:
        return {} if self.quantizer is None else uncompiled_state(self.quantizer)

    def _hash_codes(self) -> str:
        if self.quantizer is None:
            return self.space_id
        return weights_hash(self._codes_weights(), [self.space_id, self._described(self.quantizer)])

    def _described(self, *parts: Any) -> Any:
        return [to_dict(config) if (config := getattr(part, "config", None)) else None for part in parts]


@register("autoencoder")
@dataclass(frozen=True)
class AutoencoderConfig(Config):
    """Configuration of an autoencoder and its parts.

    Values that the parts share are given once, here, and passed to each part as it is built.

    Attributes:
        audio: sample rate and channel layouts.
        latent_dim: number of channels of the latents.
        encoder: Config of the encoder.
        bottleneck: Config of the bottleneck, or of a quantizer in its place.
        decoder: Config of the decoder.
        quantizer: Config of a quantizer that adds codes to continuous latents; or None.
    """

    audio: AudioSpec
    latent_dim: Width
    encoder: Config = component_field("encoder")
    bottleneck: Config = component_field("bottleneck", "quantizer")
    decoder: Config = component_field("decoder")
    quantizer: Config | None = component_field("quantizer", default=None)

    def build(self) -> Autoencoder:
        """Build every part, with the values that other parts determine."""
        b = self.bottleneck.build(dim=self.latent_dim)
        e = self.encoder.build(out_dim=b.in_dim, audio_spec=self.audio)
        expanded = replace(_latent_spec(e, b), dim=b.expanded_dim)
        d = self.decoder.build(latent_spec=expanded, audio_spec=self.audio)
        q = self.quantizer.build(dim=b.dim) if self.quantizer is not None else None
        return Autoencoder(e, b, d, q)

    @classmethod
    def example(cls) -> "AutoencoderConfig":
        """Return a tiny instance of the first encoder and decoder that share a name and fit any bottleneck."""
        names = {tag.split("/")[1] for tag in components("encoder/*")}
        names &= {tag.split("/")[1] for tag in components("decoder/*")}
        audio, bottleneck = AudioSpec(8000, 2, tuple(ChannelLayout)), lookup("bottleneck/identity").example()
        for name in sorted(names):
            encoder, decoder = (lookup(f"{role}/{name}").example() for role in ("encoder", "decoder"))
            config = cls(audio, 4, encoder, bottleneck, decoder)
            with suppress(PartitaError):
                config.build()
                return config
        raise PartitaError("no encoder and decoder share a name; install partita-encoders and partita-decoders")


def _latent_spec(encoder: Encoder, bottleneck: Bottleneck) -> LatentSpec:
    """Spec of the latents that `bottleneck` makes of `encoder`'s frames."""
    return LatentSpec(
        bottleneck.dim,
        encoder.audio_spec.sample_rate,
        encoder.hop,
        encoder.tokens_per_frame,
        encoder.ordered,
        bottleneck.codebook_sizes,
        bounded=bottleneck.bounded,
    )


def _context(part: Quantizer | None) -> Context:
    return (0, 0) if part is None else part.context


def _dtype(part: Role) -> torch.dtype:
    """Dtype of a part's weights; after `optimize` parts may differ."""
    return next((p.dtype for p in part.parameters() if p.is_floating_point()), torch.float32)
