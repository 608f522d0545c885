"""Checks that the parts of a codec fit each other."""

from .decoder_roles import Decoder
from .errors import PartitaError
from .fingerprints import unwrap_compiled
from .roles import Bottleneck, Encoder, Quantizer
from .specs import LatentSpec


def check_parts_fit(encoder: Encoder, bottleneck: Bottleneck, decoder: Decoder, quantizer: Quantizer | None) -> None:
    """Check roles, widths, hops and tokens per frame of the parts of an autoencoder.

    Raises:
        PartitaError: a part is not of its role, or two parts do not fit; both values are named.
    """
    roles = {"encoder": (encoder, Encoder), "bottleneck": (bottleneck, Bottleneck), "decoder": (decoder, Decoder)}
    roles |= {} if quantizer is None else {"quantizer": (quantizer, Quantizer)}
    for name, (part, role) in roles.items():
        if not isinstance(unwrap_compiled(part), role):
            kind = type(unwrap_compiled(part)).__name__
            raise PartitaError(f"the {name} is a {kind}; a partita_core.{role.__name__} is expected")
    for first, a, second, b in (
        ("encoder's out_dim", encoder.out_dim, "bottleneck's in_dim", bottleneck.in_dim),
        ("encoder's hop", encoder.hop, "decoder's hop", decoder.hop),
        ("bottleneck's expanded_dim", bottleneck.expanded_dim, "decoder's in_dim", decoder.in_dim),
        (
            "encoder's tokens_per_frame",
            encoder.tokens_per_frame,
            "decoder's tokens_per_frame",
            decoder.tokens_per_frame,
        ),
    ):
        if a != b:
            raise PartitaError(f"parts do not fit: the {first} is {a}, the {second} is {b}; make them equal")
    check_order(encoder.ordered, bottleneck)


def check_quantizer_fits(spec: LatentSpec, quantizer: Quantizer) -> None:
    """Check that a quantizer can be attached to a codec with continuous latents.

    Args:
        spec: latents of the codec.
        quantizer: the quantizer to attach.

    Raises:
        PartitaError: the codec makes codes already, the widths differ, or the quantizer depends on neighboring tokens
            and the codec's tokens have no order.
    """
    if spec.codebook_sizes:
        levels = len(spec.codebook_sizes)
        raise PartitaError(
            f"the codec makes {levels} levels of codes already; attach a quantizer to continuous latents"
        )
    if quantizer.dim != spec.dim:
        raise PartitaError(f"the quantizer's dim is {quantizer.dim}, the latents' is {spec.dim}; make them equal")
    check_order(spec.ordered, quantizer)


def check_order(ordered: bool, part: Bottleneck) -> None:
    """Check that a part without context is used if tokens have no order.

    Raises:
        PartitaError: the part has context, and the tokens have no order.
    """
    if not ordered and part.context != (0, 0):
        kind = type(unwrap_compiled(part)).__name__
        raise PartitaError(
            f"{kind} has context {part.context}, but the tokens have no order; use a part of context (0, 0)"
        )
