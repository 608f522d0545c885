"""Train a small language model of bytes on a data set's own texts, as a folder that transformers loads.

It is what `partita represent` takes as its frozen language model where no larger one is at hand. The texts are the
transcripts, captions and labels of the columns task, label, text, text_kind and caption.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--data", required=True, help="folder of audio or of latents, or name on the hub")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from partita_core import PartitaError

    from partita.generation.byte_lm import train_byte_lm

    from ._files import check_writable

    if options.steps <= 0:
        raise PartitaError(f"--steps is {options.steps}; it must be positive")
    check_writable(options.output / "config.json")
    found = train_byte_lm(options.data, options.output, steps=options.steps, seed=options.seed)
    validation = "" if found.validation is None else f", validation {found.validation:.2f}"
    print(f"{options.output}: {found.parameters / 1e6:.1f} M parameters, {found.texts} different texts")
    print(f"bits a byte of the answers: train {found.train:.2f}{validation}")
