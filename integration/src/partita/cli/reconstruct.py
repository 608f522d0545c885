"""Encode and decode a file in one go, to hear what a model keeps of it."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the hub")
    parser.add_argument("input", type=Path, metavar="IN", help="audio file")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".wav file to write")
    parser.add_argument("--layout", help="wanted: mono, stereo or mid_side; the input's if not given")
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help="levels of codes; all if not given")
    parser.add_argument("--sampler", help="how a denoising decoder is run; its own default if not given")
    parser.add_argument("--seed", type=int, default=0, help="of a denoising decoder's noise (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita.models import load_codec

    from ._files import check_suffix, decode_to_file, encode_file

    check_suffix(options.output, ".wav", "audio")
    codec = load_codec(options.model)
    levels = options.num_quantizers
    latents = encode_file(codec, options.input, layout=None, num_quantizers=levels, progress=True)
    latents = latents if levels is None else latents.only_codes()
    settings = {"layout": options.layout, "sampler": options.sampler, "seed": options.seed}
    decode_to_file(codec, latents, options.output, **settings)
