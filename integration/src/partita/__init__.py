"""Partita: neural audio autoencoders, assembled, trained and used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partita_core import Autoencoder, AutoencoderConfig, ChannelLayout, Codec, Latents, PartitaError

    from .model_loading import load_model as load

__all__ = ["Autoencoder", "AutoencoderConfig", "ChannelLayout", "Codec", "Latents", "PartitaError", "load"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line can prepare the process before torch is imported, and --help is quick.
    if name == "load":
        from .model_loading import load_model

        return load_model
    if name in __all__:
        import partita_core

        return getattr(partita_core, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
