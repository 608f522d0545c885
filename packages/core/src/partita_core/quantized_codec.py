"""A quantizer on top of a codec that has been trained without one."""

from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from .autoencoder import Autoencoder, AutoencoderConfig
from .codec import Codec
from .configs import from_dict, to_dict
from .errors import PartitaError
from .fingerprints import uncompiled_state, weights_hash
from .precision import Precision
from .registry import Config, component_field, lookup
from .roles import Quantizer, sum_contexts
from .saving import Saved
from .settings import register
from .specs import LatentSpec


def attach_quantizer(codec: Codec, quantizer: Quantizer) -> Codec:
    """The codec with codes beside its latents, which stay what they were, bit for bit; weights are shared.

    Raises:
        PartitaError: it makes codes already, or the quantizer does not fit it.
    """
    check_quantizer_fits(codec, quantizer)
    if not isinstance(codec, Autoencoder):
        return QuantizedCodec(codec, quantizer)
    attached = Autoencoder(codec.encoder, codec.bottleneck, codec.decoder, quantizer)
    # The measured statistics of the latents are theirs, whatever is put beside them.
    attached.latent_spec = replace(codec.latent_spec, codebook_sizes=quantizer.codebook_sizes)
    return attached


def check_quantizer_fits(codec: Codec, quantizer: Quantizer) -> None:
    """Holds codec and quantizer against each other.

    Raises:
        PartitaError: the codec makes codes already, the widths differ, or the quantizer sees neighbors where tokens
            have no order.
    """
    spec = codec.latent_spec
    if spec.codebook_sizes:
        raise PartitaError(f"{type(codec).__name__} makes codes already, of {len(spec.codebook_sizes)} levels")
    if quantizer.dim != spec.dim:
        raise PartitaError(f"the quantizer takes latents of {quantizer.dim} channels, the codec's have {spec.dim}")
    if not spec.ordered and quantizer.context != (0, 0):
        pair = f"{type(quantizer).__name__} sees {quantizer.context} frames"
        raise PartitaError(f"{pair}, but the codec's tokens have no order; take one without context, as residual")


@register("codec/quantized")
@dataclass(frozen=True)
class QuantizedCodecConfig(Config):
    """A codec and a quantizer of its latents.

    Attributes:
        codec: makes the latents.
        quantizer: makes codes of them.
    """

    codec: Config = component_field("codec", "autoencoder")
    quantizer: Config = component_field("quantizer")

    def build(self) -> "QuantizedCodec":
        """Builds both."""
        codec = self.codec.build()
        return QuantizedCodec(codec, self.quantizer.build(dim=codec.latent_spec.dim))

    @classmethod
    def example(cls) -> Self:
        """Tiny parts."""
        return cls(AutoencoderConfig.example(), lookup("quantizer/residual").example())


class QuantizedCodec(Saved, Codec):
    """Any codec with continuous latents, and a quantizer of them; `Autoencoder` has a place of its own for one."""

    def __init__(self, codec: Codec, quantizer: Quantizer) -> None:
        """Puts `quantizer` beside the latents of `codec`.

        Raises:
            PartitaError: they do not fit; see `check_continuous`.
        """
        super().__init__()
        check_quantizer_fits(codec, quantizer)
        self.base, self.quantizer = codec, quantizer
        self.audio_spec = codec.audio_spec
        self.latent_spec = replace(codec.latent_spec, codebook_sizes=quantizer.codebook_sizes)
        self.encode_context = sum_contexts(codec.encode_context, quantizer.context)
        self.decode_context = sum_contexts(codec.decode_context, quantizer.context)
        self.max_batch_size, self.tile_seconds = codec.max_batch_size, codec.tile_seconds

    def encode_frames(
        self, audio: Tensor, layout: Tensor, num_quantizers: int | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The codec's latents, and their codes; see `Codec`."""
        values, _ = self.base.encode_frames(audio, layout, None)
        assert values is not None
        return values, self.quantizer.encode_codes(values, num_quantizers)

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Audio of latents, or of codes; see `Codec`."""
        if values is None:
            assert codes is not None
            values = self.codes_to_values(codes).to(self._parameter().dtype)
        return self.base.decode_frames(values, None, layout, sampler, seeds)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """The quantizer's look-up; see `Codec`."""
        return self.quantizer.codes_to_values(codes)

    def project(self, values: Tensor) -> Tensor:
        """The codec's projection; see `Codec`."""
        return self.base.project(values)

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """As the codec's own; the quantizer stays in float32."""
        with self._fixed():
            self.base.optimize(precision=precision, compile=compile)
        return self

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Configs of both, the spec and the ids; see `Saved`."""
        self._check_savable()
        for part in (self.base, self.quantizer):
            if not isinstance(getattr(part, "config", None), Config):
                raise PartitaError(
                    f"a {type(part).__name__} that was not built from a registered Config cannot be saved"
                )
        config = QuantizedCodecConfig(self.base.config, self.quantizer.config)  # pyright: ignore[reportArgumentType]
        return config, {"latent_spec": to_dict(self.latent_spec)} | self._ids()

    def restore(self, facts: dict[str, Any]) -> None:
        """Takes back the spec and the ids; see `Saved`."""
        self.latent_spec = from_dict(LatentSpec, facts["latent_spec"], where="latent_spec")
        self.base.latent_spec = replace(self.latent_spec, codebook_sizes=())
        self._take_ids(facts)

    def _space_weights(self) -> dict[str, Tensor]:
        return self.base._space_weights()

    def _hash_space(self) -> str:
        return self.base.space_id

    def _codes_weights(self) -> dict[str, Tensor]:
        return uncompiled_state(self.quantizer)

    def _hash_codes(self) -> str:
        return weights_hash(self._codes_weights(), to_dict(getattr(self.quantizer, "config", None)))
