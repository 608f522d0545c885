"""Encode and decode a file in one go, to hear what a model keeps of it."""

import argparse
from pathlib import Path

from ._models import add_levels, add_model, open_model
from ._sampler import add_sampler, named_sampler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument("input", type=Path, metavar="IN", help="audio file")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".wav file to write")
    parser.add_argument("--layout", help="wanted: mono, stereo or mid_side; the input's if not given")
    add_levels(parser)
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="of a denoising decoder's noise (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from ._files import check_other, check_suffix, decode_to_file, encode_file

    check_suffix(options.output, ".wav", "audio")
    check_other(options.output, options.input)
    sampler = named_sampler(options.sampler)
    codec = open_model(options)
    levels = options.num_quantizers
    latents = encode_file(codec, options.input, layout=None, num_quantizers=levels or None, progress=True)
    latents = latents if latents.codes is None or levels == 0 else latents.only_codes()
    decode_to_file(codec, latents, options.output, layout=options.layout, sampler=sampler, seed=options.seed)
