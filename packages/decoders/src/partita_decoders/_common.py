from math import prod

from partita_core import LatentSpec, PartitaError


def check_fit(name: str, strides: tuple[int, ...], latent_spec: LatentSpec) -> None:
    """Refuses latents that a decoder of these strides, one token a frame, cannot take; `name` is its name."""
    if prod(strides) != latent_spec.hop:
        raise PartitaError(
            f"decoder strides {strides} make a hop of {prod(strides)}, the encoder's is "
            f"{latent_spec.hop}; choose strides with that product"
        )
    if latent_spec.tokens_per_frame != 1:
        raise PartitaError(
            f"the {name} decoder takes 1 token a frame, the encoder makes {latent_spec.tokens_per_frame}"
        )
