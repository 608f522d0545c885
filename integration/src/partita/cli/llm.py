"""Train a small byte-level language model on the texts of a data set, as a folder that transformers loads.

`partita represent` accepts it as its frozen language model if no larger one is available. The texts are the
transcripts, captions and labels in the columns task, label, text, text_kind and caption.
"""

import argparse

from ._arguments import add_output, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--data", required=True, help="folder of audio or of latents, or name on the hub")
    add_output(parser, "folder to create")
    parser.add_argument("--steps", type=positive_int, default=300, help="optimizer steps (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data order (default: 0)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita.generation.byte_lm import train_byte_lm

    from ._files import check_writable

    check_writable(options.output / "config.json")
    found = train_byte_lm(options.data, options.output, steps=options.steps, seed=options.seed)
    validation = "" if found.validation is None else f", validation {found.validation:.2f}"
    print(f"{options.output}: {found.parameters / 1e6:.1f} M parameters, {found.texts} different texts")
    print(f"bits per byte of the answers: train {found.train:.2f}{validation}")
