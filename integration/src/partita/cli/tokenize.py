"""Encode an audio file to token ids for a language model, in a self-describing .safetensors file."""

import argparse
from pathlib import Path

from ._arguments import add_num_quantizers, add_output
from ._models import MODEL, add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model(parser, f"{MODEL}, with codes")
    parser.add_argument("input", type=Path, metavar="IN", help="audio file")
    add_output(parser, ".safetensors file to write")
    add_num_quantizers(parser)
    parser.add_argument(
        "--layout",
        choices=("flat", "delay"),
        default="flat",
        help="layout of the ids: one sequence (flat), or one row per level, each shifted by one frame (delay) "
        "(default: flat)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_quantizers import Tokens

    from ._files import check_suffix, encode_file, require_codes

    check_suffix(options.output, ".safetensors", "token ids")
    codec = open_model(options)
    require_codes(codec, options.model)
    levels = options.num_quantizers
    latents = encode_file(codec, options.input, num_quantizers=levels)
    tokens = Tokens.from_latents(latents, num_quantizers=levels, layout=options.layout)
    tokens.save(options.output)
    shape = " x ".join(map(str, tokens.ids.shape[1:]))
    print(f"{options.output}: {shape} ids ({options.layout}) of {tokens.space.vocab_size} for {options.input}")
