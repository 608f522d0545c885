"""The codec that is assembled from parts: encoder, bottleneck, decoder, and a quantizer if there is one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ._checks import Layouts, as_audio, batch_lengths, known_layouts
from .arrays import as_tensor
from .codec import Codec
from .configs import from_dict, to_dict
from .errors import PartitaError
from .fingerprints import uncompiled_state, unwrap_compiled, weights_hash
from .layouts import ChannelLayout
from .precision import Precision, check_precision
from .ranges import Width
from .registry import Config, component_field, components, lookup
from .roles import (
    Bottleneck,
    BottleneckOutput,
    Context,
    Decoder,
    Encoder,
    FeedForwardDecoder,
    Posterior,
    Quantizer,
    Role,
    sum_contexts,
)
from .saving import Saved
from .settings import register
from .specs import AudioSpec, LatentSpec
from .streams import Chain, Stream


def latent_spec(encoder: Encoder, bottleneck: Bottleneck) -> LatentSpec:
    """The spec of the latents that `bottleneck` makes of `encoder`'s frames."""
    return LatentSpec(
        bottleneck.dim,
        encoder.audio_spec.sample_rate,
        encoder.hop,
        encoder.tokens_per_frame,
        encoder.ordered,
        bottleneck.codebook_sizes,
        bounded=bottleneck.bounded,
    )


class Autoencoder(Saved, Codec):
    """There is one path, in training, encoding and decoding: `decoder(expand(bottleneck(encoder(x)).values))`.

    A quantizer in the bottleneck's place makes latents that are the values of its codes. One attached as `quantizer`
    leaves the latents as they were and puts codes beside them.
    """

    def __init__(
        self, encoder: Encoder, bottleneck: Bottleneck, decoder: Decoder, quantizer: Quantizer | None = None
    ) -> None:
        """Assemble the parts.

        Raises:
            PartitaError: one is not of its role, or they do not fit: width, hop, tokens per frame, or context on tokens
                that have no order.
        """
        super().__init__()
        roles = {"encoder": (encoder, Encoder), "bottleneck": (bottleneck, Bottleneck), "decoder": (decoder, Decoder)}
        for name, (part, role) in (roles | {"quantizer": (quantizer, Quantizer)}).items():
            if not isinstance(unwrap_compiled(part), role) and not (part is None and name == "quantizer"):
                kind = type(unwrap_compiled(part)).__name__
                raise PartitaError(f"the {name} is a {kind}; a partita_core.{role.__name__} is expected")
        self.encoder, self.bottleneck, self.decoder, self.quantizer = encoder, bottleneck, decoder, quantizer
        self.audio_spec = encoder.audio_spec
        self.latent_spec = latent_spec(encoder, bottleneck)
        _require("the encoder's out_dim", encoder.out_dim, "the bottleneck's in_dim", bottleneck.in_dim)
        _require("the encoder's hop", encoder.hop, "the decoder's hop", decoder.hop)
        _require("the bottleneck's dim", bottleneck.dim, "the decoder's in_dim", decoder.in_dim)
        _require(
            "the encoder's tokens per frame",
            encoder.tokens_per_frame,
            "the decoder's",
            decoder.tokens_per_frame,
        )
        for part in (bottleneck, quantizer):
            if not encoder.ordered and part is not None and part.context != (0, 0):
                pair = f"{type(part).__name__} sees {part.context} frames"
                tokens = f"{type(encoder).__name__}'s tokens have no order"
                raise PartitaError(f"{pair}, but {tokens}; take one without context")
        if quantizer is not None:
            _require("the bottleneck's dim", bottleneck.dim, "the quantizer's dim", quantizer.dim)
            if isinstance(unwrap_compiled(bottleneck), Quantizer):
                raise PartitaError("the bottleneck quantizes already; a second quantizer cannot be attached")
            self.latent_spec = replace(self.latent_spec, codebook_sizes=quantizer.codebook_sizes)
        self.encode_context = sum_contexts(encoder.context, bottleneck.context, _context(quantizer))
        self.decode_context = sum_contexts(_context(self._quantizing), decoder.context)
        self.tile_seconds = min(encoder.tile_seconds, decoder.tile_seconds)

    @property
    def _quantizing(self) -> Quantizer | None:
        """The quantizer, in whichever place; not an attribute, or its weights would be saved twice."""
        return self.bottleneck if isinstance(unwrap_compiled(self.bottleneck), Quantizer) else self.quantizer  # pyright: ignore

    def forward(
        self,
        audio: Tensor,
        layout: Layouts | None = None,
        target_layout: Layouts | None = None,
        *,
        stochastic: bool | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, BottleneckOutput]:
        """The training path of a feed-forward decoder.

        Args:
            audio: `(batch, channels, samples)` as the network sees it; zeros fill the last frame.
            layout: layout of each item, or one for all; None for the only one that the model knows.
            target_layout: layout of the output, likewise; None for that of the input.
            stochastic: True for the bottleneck's noise; None means `self.training`.
            lengths: `(batch,)` int64, samples of each item that are not padding; None where all items are full.

        Returns:
            The reconstruction `(batch, channels, samples)`, and the bottleneck's output.

        Raises:
            PartitaError: shapes, lengths or layouts are not those of the network, or the decoder is trained otherwise.
        """
        if not isinstance(unwrap_compiled(self.decoder), FeedForwardDecoder):
            kind = type(unwrap_compiled(self.decoder)).__name__
            raise PartitaError(f"{kind} does not decode in one pass; use encode and decode, or ConsistencyTraining")
        audio = as_audio(audio)
        samples = audio.shape[-1]
        whole, layout = self._received(audio, layout)
        target = layout if target_layout is None else self._layouts(target_layout, whole)
        tokens = None if lengths is None else self.latent_spec.tokens(batch_lengths(lengths, len(whole), samples))
        output = self.bottleneck(self.encoder(whole, layout), stochastic=stochastic, lengths=tokens)
        decoded = self.decoder(self.bottleneck.expand(output.values).to(whole.dtype), target)
        return decoded[..., :samples], output

    def posterior(self, audio: Tensor, layout: Layouts | None = None) -> Posterior:
        """Distribution of the latents of audio, which `Posterior.sample` draws from; see `Bottleneck.posterior`.

        Args:
            audio: `(batch, channels, samples)` as the network sees it; zeros fill the last frame.
            layout: layout of each item, or one for all; None for the only one that the model knows.

        Raises:
            PartitaError: shapes or layouts are not those of the network.
        """
        return self.bottleneck.posterior(self.encoder(*self._received(audio, layout)))

    def _received(self, audio: Any, layout: Layouts | None) -> tuple[Tensor, Tensor]:
        """Audio of whole frames, and layouts, as the encoder takes them."""
        audio = as_audio(audio)
        batch, channels, samples = audio.shape
        if channels != self.audio_spec.channels or not batch or not samples:
            expected = f"the network takes (batch, {self.audio_spec.channels}, samples), neither empty"
            raise PartitaError(f"audio is {tuple(audio.shape)}; {expected}")
        audio = audio.to(self._parameter().dtype)
        missing = -samples % self.encoder.hop
        whole = F.pad(audio, (0, missing)) if missing else audio
        return whole, self._layouts(layout, whole)

    def _layouts(self, layout: Layouts | None, audio: Tensor) -> Tensor:
        return known_layouts(self.audio_spec, layout, len(audio)).to(audio.device)

    def encode_frames(self, audio: Tensor, layout: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor | None]:
        """Latents, and codes if there is a quantizer; see `Codec`."""
        return self._quantize(self.encoder(audio, layout), num_quantizers)

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Audio of latents, or of codes; see `Codec`."""
        return self.decoder.generate(self._expand(values, codes), layout, sampler=sampler, seeds=seeds)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """The quantizer's look-up; see `Codec`."""
        if self._quantizing is None:
            return super().codes_to_values(codes)
        return self._quantizing.codes_to_values(codes)

    def project(self, values: Tensor) -> Tensor:
        """The bottleneck's projection; see `Codec`."""
        return self.bottleneck.project(as_tensor(values, "values"))

    def encode_stream(self, layout: Tensor, *, num_quantizers: int | None, width: int) -> Stream:
        """As `Codec.encode_stream`, through the encoder's own stream."""
        encoder = self.encoder.stream(layout, dtype=_dtype(self.encoder), width=width)
        context = sum_contexts(self.bottleneck.context, _context(self.quantizer))
        k = self.latent_spec.tokens_per_frame
        rest = self._bounded(lambda h: (*self._quantize(h, num_quantizers), None), k, k, context, width)
        return Chain(encoder, rest)

    def decode_stream(self, layout: Tensor, *, sampler: Any, seeds: Tensor, width: int) -> Stream:
        """As `Codec.decode_stream`, through the decoder's own stream."""

        def expand(content: Tensor) -> Tensor:
            return self._expand(content, None) if content.is_floating_point() else self._expand(None, content)

        k = self.latent_spec.tokens_per_frame
        values = self._bounded(expand, k, k, _context(self._quantizing), width)
        decoder = self.decoder.stream(layout, sampler=sampler, seeds=seeds, dtype=_dtype(self.decoder), width=width)
        return Chain(values, decoder)

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """As `Codec.optimize`, with weight norm folded, and each part prepared as it does best; see `Role.optimize`.

        GenAE's encoder then runs fused kernels where the machine can build them. Bottleneck and quantizer stay in
        float32.
        """
        check_precision(precision)
        with self._fixed():
            for module in list(self.modules()):
                if parametrize.is_parametrized(module):
                    _fold(module)
            for part in (self.encoder, self.decoder):
                part.optimize(precision=precision, compile=compile)
        return self

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The `AutoencoderConfig` of the parts, the specs and the ids; see `Saved`."""
        self._check_savable()
        parts = {"encoder": self.encoder, "bottleneck": self.bottleneck, "decoder": self.decoder}
        parts |= {"quantizer": self.quantizer} if self.quantizer is not None else {}
        for name, part in parts.items():
            if not isinstance(getattr(part, "config", None), Config):
                raise PartitaError(
                    f"the {name} {type(unwrap_compiled(part)).__name__} was not built from a registered Config"
                )
        configs = {name: part.config for name, part in parts.items()}
        config = AutoencoderConfig(audio=self.audio_spec, latent_dim=self.latent_spec.dim, **configs)
        return config, {"latent_spec": to_dict(self.latent_spec)} | self._ids()

    def restore(self, facts: dict[str, Any]) -> None:
        """Takes back the measured statistics and the ids; see `Saved`."""
        spec = from_dict(LatentSpec, facts["latent_spec"], where="latent_spec")
        if replace(spec, mean=None, std=None) != self.latent_spec:
            raise PartitaError("latent_spec in config.json is not that of the model it describes")
        self.latent_spec = spec
        self._take_ids(facts)

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
    """An autoencoder assembled from parts.

    What they share is written here, once, and handed to each as it is built.

    Attributes:
        audio: sample rate and layouts.
        latent_dim: width of the latents.
        encoder: audio to hidden frames.
        bottleneck: hidden frames to latents; a quantizer may take its place.
        decoder: latents to audio.
        quantizer: codes beside continuous latents, attached after training.
    """

    audio: AudioSpec
    latent_dim: Width
    encoder: Config = component_field("encoder")
    bottleneck: Config = component_field("bottleneck", "quantizer")
    decoder: Config = component_field("decoder")
    quantizer: Config | None = component_field("quantizer", default=None)

    def build(self) -> Autoencoder:
        """Builds every part with what it needs of the others."""
        b = self.bottleneck.build(dim=self.latent_dim)
        e = self.encoder.build(out_dim=b.in_dim, audio_spec=self.audio)
        d = self.decoder.build(latent_spec=latent_spec(e, b), audio_spec=self.audio)
        q = self.quantizer.build(dim=b.dim) if self.quantizer is not None else None
        return Autoencoder(e, b, d, q)

    @classmethod
    def example(cls) -> "AutoencoderConfig":
        """The tiny example of the first encoder and decoder that go by one name, if any are installed."""
        names = {tag.split("/")[1] for tag in components("encoder/*")}
        names &= {tag.split("/")[1] for tag in components("decoder/*")}
        if not names:
            raise PartitaError("no encoder and decoder of one name are installed")
        encoder, decoder = (lookup(f"{role}/{min(names)}").example() for role in ("encoder", "decoder"))
        layouts = (ChannelLayout.MONO, ChannelLayout.STEREO, ChannelLayout.MID_SIDE)
        return cls(AudioSpec(8000, 2, layouts), 4, encoder, lookup("bottleneck/identity").example(), decoder)


def _context(part: Quantizer | None) -> Context:
    return (0, 0) if part is None else part.context


def _fold(module: nn.Module) -> None:
    """Makes plain parameters of parametrized ones, of this module alone.

    torch's `remove_parametrizations` takes the properties off the class that it made for the module, which a deep copy
    shares, and so breaks that.
    """
    folded = {name: getattr(module, name).detach() for name in module.parametrizations}  # pyright: ignore
    del module.parametrizations
    module.__class__ = type(module).__mro__[1]
    for name, tensor in folded.items():
        module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))


def _dtype(part: Role) -> torch.dtype:
    """Of a part's weights, which after `optimize` is its own."""
    return next((p.dtype for p in part.parameters() if p.is_floating_point()), torch.float32)


def _require(what: str, figure: int, other: str, second: int) -> None:
    if figure != second:
        raise PartitaError(f"parts do not fit: {what} is {figure}, {other} is {second}; they must be equal")


@torch.no_grad()
def measure_latents(codec: Codec, pieces: Any) -> LatentSpec:
    """The codec's latent spec with each channel's mean and standard deviation over `pieces` of `Latents`.

    Raises:
        PartitaError: there are no frames.
    """
    count, total, squares = 0, torch.zeros(codec.latent_spec.dim, dtype=torch.float64), None
    for latents in pieces:
        for i in range(len(latents)):
            values = latents[i].values[0].double().cpu()
            values = values.clamp(-1 + 1e-6, 1 - 1e-6).atanh() if codec.latent_spec.bounded else values
            count += values.shape[-1]
            total = total + values.sum(-1)
            squares = values.square().sum(-1) + (0 if squares is None else squares)
    if squares is None or not count:
        raise PartitaError("there are no latents to measure")
    mean = total / count
    std = (squares / count - mean**2).clamp_min(1e-12).sqrt()
    return replace(codec.latent_spec, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
