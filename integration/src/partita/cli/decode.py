"""Decode a file of latents to audio of exactly the length that was encoded."""

import argparse
from pathlib import Path

from ._models import add_model, open_model
from ._sampler import add_sampler, named_sampler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument("latents", type=Path, metavar="LATENTS", help=".safetensors file that encode wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".wav file to write")
    parser.add_argument("--layout", help="wanted: mono, stereo or mid_side; as encoded if not given")
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="of a denoising decoder's noise (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import Latents

    from ._files import check_suffix, decode_to_file

    check_suffix(options.output, ".wav", "audio")
    sampler = named_sampler(options.sampler)
    codec = open_model(options)
    latents = Latents.load(options.latents)
    decode_to_file(codec, latents, options.output, layout=options.layout, sampler=sampler, seed=options.seed)
