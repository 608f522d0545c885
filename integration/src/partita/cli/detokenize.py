"""Decode a file of token ids to audio of exactly the tokenized length."""

import argparse
from pathlib import Path

from ._arguments import add_num_quantizers
from ._decoding import Decoding, add_decoding_arguments
from ._models import MODEL, add_model, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model(parser, f"{MODEL}, with codes")
    parser.add_argument("input", type=Path, metavar="IN", help=".safetensors file written by tokenize")
    add_decoding_arguments(parser, layout=False)
    add_num_quantizers(parser, "quantizer levels of the codes to decode")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError
    from partita_quantizers import Tokens

    from ._files import require_codes

    decoding = Decoding.from_options(options)
    tokens = Tokens.load(options.input)
    codec = open_model(options)
    require_codes(codec, options.model)
    found, expected = tokens.space.codebook_sizes, codec.latent_spec.codebook_sizes
    if found != expected:
        raise PartitaError(f"{options.input}: has tokens of codebooks {found}, but the model has {expected}")
    try:
        latents = tokens.to_latents(num_quantizers=options.num_quantizers)
    except PartitaError as error:
        raise PartitaError(f"{options.input}: {error}") from None
    decoding.write(codec, latents)
