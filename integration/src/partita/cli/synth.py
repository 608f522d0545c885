"""Make a data set of synthesized music, labeled and captioned, to try everything on."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument("--minutes", type=float, default=10.0, help="of music in all (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the music (default 0)")


def run(options: argparse.Namespace) -> None:
    """Runs the command."""
    from tqdm import tqdm

    from partita.data import synthesize

    with tqdm(unit="clip", desc="synthesizing") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = synthesize(options.out, minutes=options.minutes, seed=options.seed, progress=progress)
    print(f"{options.out}: {'made' if made else 'is there already'}")
