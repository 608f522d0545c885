"""Decode a file of latents to audio of exactly the encoded length."""

import argparse
from pathlib import Path

from ._decoding import Decoding, add_decoding_arguments
from ._models import add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model(parser)
    parser.add_argument("latents", type=Path, metavar="LATENTS", help=".safetensors file written by encode")
    add_decoding_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import Latents

    decoding = Decoding.from_options(options)
    codec = open_model(options)
    decoding.write(codec, Latents.load(options.latents))
