"""Decode a file of token ids to audio of exactly the length that was tokenized."""

import argparse
from pathlib import Path

from ._models import add_model, open_model
from ._sampler import add_sampler, named_sampler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser, "model folder, or name on the hub, of a model with codes")
    parser.add_argument("input", type=Path, metavar="IN", help=".safetensors file that tokenize wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".wav file to write")
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help="levels of codes to use; all if not given")
    add_sampler(parser)
    parser.add_argument("--seed", type=int, default=0, help="of a denoising decoder's noise (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError
    from partita_quantizers import Tokens

    from ._files import check_suffix, decode_to_file, require_codes

    check_suffix(options.output, ".wav", "audio")
    sampler = named_sampler(options.sampler)
    tokens = Tokens.load(options.input)
    codec = open_model(options)
    require_codes(codec, options.model)
    theirs, ours = tokens.space.codebook_sizes, codec.latent_spec.codebook_sizes
    if theirs != ours:
        raise PartitaError(f"{options.input}: these tokens are of the codebooks {theirs}, the model's are {ours}")
    try:
        latents = tokens.to_latents(num_quantizers=options.num_quantizers)
    except PartitaError as error:
        raise PartitaError(f"{options.input}: {error}") from None
    decode_to_file(codec, latents, options.output, sampler=sampler, seed=options.seed)
