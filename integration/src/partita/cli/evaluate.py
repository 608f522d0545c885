"""Measure models on a data set, compared with silence, matched noise and a linear codec of as many numbers."""

import argparse
from pathlib import Path

from ._evaluation import add_evaluation_arguments, open_systems, run_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_evaluation_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all results but the speeds as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the metrics of each clip as CSV")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the printed tables")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from ._files import check_writable

    for path in (options.json, options.csv, options.markdown):
        if path is not None:
            check_writable(path)
    found = run_evaluation(options, open_systems(options))
    print(found.to_markdown())
    if options.json is not None:
        found.to_json(options.json)
    if options.csv is not None:
        found.to_csv(options.csv)
    if options.markdown is not None:
        found.write_markdown(options.markdown)
