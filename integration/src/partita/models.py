"""Models by name: a folder, or a repository on the hub."""

from pathlib import Path

from partita_core import Autoencoder, Codec


def load_codec(name: str | Path) -> Codec:
    """The codec of a model folder or hub repository, in eval mode.

    Raises:
        PartitaError: there is none; see `Saved.from_pretrained`.
    """
    return Autoencoder.from_pretrained(name)
