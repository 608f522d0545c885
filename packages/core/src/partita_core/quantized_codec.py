"""Quantizers attached to codecs that were trained with continuous latents."""

from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from ._fit import check_quantizer_fits
from .autoencoder import Autoencoder, AutoencoderConfig
from .codec import Codec
from .configs import to_dict
from .fingerprints import uncompiled_state, weights_hash
from .precision import Precision
from .registry import Config, component_field, lookup
from .roles import Quantizer, sum_contexts
from .saving import Saved, config_of_part
from .settings import register


def attach_quantizer(codec: Codec, quantizer: Quantizer) -> Codec:
    """Add codes to the latents of a codec; its values do not change, and weights are shared.

    Raises:
        PartitaError: the codec makes codes already, or the quantizer does not fit its latents.
    """
    if not isinstance(codec, Autoencoder):
        return QuantizedCodec(codec, quantizer)
    attached = Autoencoder(codec.encoder, codec.bottleneck, codec.decoder, quantizer)
    # Statistics measured on the values stay valid, since the values do not change.
    attached.latent_spec = replace(codec.latent_spec, codebook_sizes=quantizer.codebook_sizes)
    return attached


@register("codec/quantized")
@dataclass(frozen=True)
class QuantizedCodecConfig(Config):
    """Configuration of a codec and a quantizer of its latents.

    Attributes:
        codec: Config of the codec.
        quantizer: Config of the quantizer.
    """

    codec: Config = component_field("codec", "autoencoder")
    quantizer: Config = component_field("quantizer")

    def build(self) -> "QuantizedCodec":
        """Build both."""
        codec = self.codec.build()
        return QuantizedCodec(codec, self.quantizer.build(dim=codec.latent_spec.dim))

    @classmethod
    def example(cls) -> Self:
        """Return a tiny instance."""
        return cls(AutoencoderConfig.example(), lookup("quantizer/residual").example())


class QuantizedCodec(Codec, Saved):
    """A codec with continuous latents and a quantizer of them; an `Autoencoder` takes its quantizer as a part."""

    def __init__(self, codec: Codec, quantizer: Quantizer) -> None:
        """Attach `quantizer` to the latents of `codec`.

        Raises:
            PartitaError: they do not fit; see `check_quantizer_fits`.
        """
        super().__init__()
        check_quantizer_fits(codec.latent_spec, quantizer)
        self.base, self.quantizer = codec, quantizer
        self.audio_spec = codec.audio_spec
        self.latent_spec = replace(codec.latent_spec, codebook_sizes=quantizer.codebook_sizes)
        self.encode_context = sum_contexts(codec.encode_context, quantizer.context)
        self.decode_context = sum_contexts(codec.decode_context, quantizer.context)
        self.max_batch_size, self.tile_seconds = codec.max_batch_size, codec.tile_seconds

    def encode_frames(
        self, audio: Tensor, layout: Tensor, num_quantizers: int | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Encode to the codec's values, and to codes; see `Codec`."""
        values, _ = self.base.encode_frames(audio, layout, None)
        assert values is not None
        return values, self.quantizer.encode_codes(values, num_quantizers)

    def decode_frames(
        self, values: Tensor | None, codes: Tensor | None, layout: Tensor, sampler: Any, seeds: Tensor | None
    ) -> Tensor:
        """Decode values or codes to audio; see `Codec`."""
        if values is None:
            assert codes is not None
            values = self.codes_to_values(codes).to(self._parameter().dtype)
        return self.base.decode_frames(values, None, layout, sampler, seeds)

    def codes_to_values(self, codes: Tensor) -> Tensor:
        """Look up codes in the quantizer; see `Codec`."""
        return self.quantizer.codes_to_values(codes)

    def project(self, values: Tensor) -> Tensor:
        """Project onto the latents of the codec; see `Codec`."""
        return self.base.project(values)

    def optimize(self, *, precision: Precision = "float32", compile: bool = False) -> Self:
        """Optimize the codec; the quantizer stays in float32. See `Codec`."""
        with self._frozen_for_inference():
            self.base.optimize(precision=precision, compile=compile)
        return self

    def saved_config(self) -> tuple[Config, dict[str, Any]]:
        """The Configs of both, the latent spec and the fingerprints; see `Saved`."""
        config = QuantizedCodecConfig(config_of_part(self.base), config_of_part(self.quantizer))
        return config, self._saved_facts()

    def restore(self, facts: dict[str, Any]) -> None:
        """Restore the statistics of both; see `Codec`."""
        super().restore(facts)
        self.base.latent_spec = replace(self.latent_spec, codebook_sizes=())

    def _space_weights(self) -> dict[str, Tensor]:
        return self.base._space_weights()

    def _hash_space(self) -> str:
        return self.base.space_id

    def _codes_weights(self) -> dict[str, Tensor]:
        return uncompiled_state(self.quantizer)

    def _hash_codes(self) -> str:
        return weights_hash(self._codes_weights(), to_dict(getattr(self.quantizer, "config", None)))
