"""The argument that names a sampler; nothing heavy is imported before it is read."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partita_core import Sampler


def add_sampler(parser: argparse.ArgumentParser) -> None:
    """Declares the argument that `named_sampler` reads."""
    settings = "two_step:refine=false,sigma_context=0.5"
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help=f"how a denoising decoder is run, as two_step or {settings}; its own default if not given",
    )


def named_sampler(text: str | None) -> "Sampler | None":
    """The sampler of a name, with settings behind a colon if need be; None for None.

    Raises:
        PartitaError: no sampler or setting is called so, or a value does not fit.
    """
    from partita_core import parse_config

    if text is None:
        return None
    return parse_config(text, "sampler").build()
