"""Decode a file of latents to audio of exactly the length that was encoded."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the hub")
    parser.add_argument("latents", type=Path, metavar="LATENTS", help=".safetensors file that encode wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".wav file to write")
    parser.add_argument("--layout", help="wanted: mono, stereo or mid_side; as encoded if not given")
    parser.add_argument("--sampler", help="how a denoising decoder is run; its own default if not given")
    parser.add_argument("--seed", type=int, default=0, help="of a denoising decoder's noise (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import Latents

    from partita.models import load_codec

    from ._files import check_suffix, decode_to_file

    check_suffix(options.output, ".wav", "audio")
    codec = load_codec(options.model)
    latents = Latents.load(options.latents)
    settings = {"layout": options.layout, "sampler": options.sampler, "seed": options.seed}
    decode_to_file(codec, latents, options.output, **settings)
