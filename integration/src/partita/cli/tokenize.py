"""Encode a file to the token ids that a language model takes, in a .safetensors file that says what they mean."""

import argparse
from pathlib import Path

from ._models import add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser, "model folder, or name on the hub, of a model with codes")
    parser.add_argument("input", type=Path, metavar="IN", help="audio file")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".safetensors file to write")
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help="levels of codes; all if not given")
    parser.add_argument(
        "--layout",
        choices=("flat", "delay"),
        default="flat",
        help="of the ids: one sequence, level by level (flat, the default), or a row for each level, shifted (delay)",
    )


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_quantizers import Tokens

    from ._files import check_suffix, encode_file, require_codes

    check_suffix(options.output, ".safetensors", "a file's token ids")
    codec = open_model(options)
    require_codes(codec, options.model)
    levels = options.num_quantizers
    latents = encode_file(codec, options.input, layout=None, num_quantizers=levels, progress=True)
    tokens = Tokens.from_latents(latents, num_quantizers=levels, layout=options.layout)
    tokens.save(options.output)
    shape = " x ".join(map(str, tokens.ids.shape[1:]))
    print(f"{options.output}: {shape} ids ({options.layout}) of {tokens.space.vocab_size} for {options.input}")
