"""Setting types and checks shared by the decoders."""

from math import prod
from typing import Literal

from partita_core import LatentSpec, PartitaError

ActivationName = Literal["snake_lite", "snake", "snake_beta", "elu"]
"""Names in `partita_blocks.ACTIVATIONS`."""


def check_latents(name: str, strides: tuple[int, ...], latent_spec: LatentSpec) -> None:
    """Check that a decoder with the given strides and one token per frame fits the latents.

    Args:
        name: name of the decoder, for the message.
        strides: upsampling factors, whose product is the hop.
        latent_spec: format of the latents.

    Raises:
        PartitaError: the hops differ, or there is more than one token per frame.
    """
    if prod(strides) != latent_spec.hop:
        raise PartitaError(
            f"decoder strides {strides} make a hop of {prod(strides)}, the encoder's is "
            f"{latent_spec.hop}; choose strides with that product"
        )
    check_one_token(name, latent_spec)


def check_one_token(name: str, latent_spec: LatentSpec) -> None:
    """Check that latents have one token per frame.

    Raises:
        PartitaError: they have several.
    """
    if latent_spec.tokens_per_frame != 1:
        raise PartitaError(
            f"the {name} decoder takes 1 token per frame, but the encoder makes {latent_spec.tokens_per_frame}; "
            "choose another encoder or decoder"
        )
