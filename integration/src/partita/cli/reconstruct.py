"""Encode and decode an audio file in one step, to hear how well a model preserves it."""

import argparse
from pathlib import Path

from ._decoding import Decoding, add_decoding_arguments
from ._models import add_levels, add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model(parser)
    parser.add_argument("input", type=Path, metavar="IN", help="audio file")
    add_decoding_arguments(parser)
    add_levels(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from ._files import check_other, encode_file

    decoding = Decoding.from_options(options)
    check_other(options.output, options.input)
    codec = open_model(options)
    levels = options.num_quantizers
    latents = encode_file(codec, options.input, num_quantizers=levels or None)
    decoding.write(codec, latents if latents.codes is None or levels == 0 else latents.only_codes())
