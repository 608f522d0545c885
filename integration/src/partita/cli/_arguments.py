"""Command-line arguments and argument types shared by several commands."""

import argparse
import math
from pathlib import Path


def positive_int(text: str) -> int:
    """Parse a positive integer."""
    return int(_positive(int, text, "integer"))


def positive_float(text: str) -> float:
    """Parse a positive finite number."""
    return float(_positive(float, text, "number"))


def _positive(kind: type, text: str, name: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive {name}")
    return value


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the required argument `--output`."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=what)


def add_num_quantizers(parser: argparse.ArgumentParser, what: str = "quantizer levels of the codes") -> None:
    """Add the argument `--num-quantizers`."""
    parser.add_argument("--num-quantizers", type=int, metavar="Q", help=f"{what} (default: all)")


def add_where(parser: "argparse._ActionsContainer") -> None:
    """Add the argument `--where`."""
    parser.add_argument(
        "--where", default="", metavar="COLUMN=VALUE,...", help="use only rows whose columns have these values"
    )
