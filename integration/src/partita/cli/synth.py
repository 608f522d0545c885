"""Synthesize a labeled and captioned data set of music, for trying everything without recordings."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to create")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of music (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the music (default: 0)")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    written = synthesize_with_progress(options.out, minutes=options.minutes, seed=options.seed)
    print(f"{options.out}: {'written' if written else 'exists already'}")


def synthesize_with_progress(folder: Path, *, minutes: float, seed: int) -> bool:
    """Call `synthesize` with a progress bar; errors and return value as there."""
    from tqdm import tqdm

    from partita.data import synthesize

    with tqdm(unit="clip", desc="synthesizing") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return synthesize(folder, minutes=minutes, seed=seed, progress=progress)
