"""List the registered components of Partita and of other installed packages."""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help='role, such as loss, or pattern with wildcards, such as "*/genae" (default: all components)',
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all fields and their defaults")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from partita_core import PartitaError, components, suggest, to_dict

    found = components(options.pattern) or components(f"{options.pattern}/*")
    if not found:
        known = components() if "/" in options.pattern else {tag.split("/")[0] for tag in components()}
        raise PartitaError(f"no component matches {options.pattern!r}; {suggest(options.pattern, known)}")
    if options.json:
        listed = {
            tag: {"package": cls.__module__.split(".")[0], "summary": _summary(cls), "example": to_dict(cls.example())}
            for tag, cls in found.items()
        }
        print(json.dumps(listed, indent=2))
        return
    width = max(map(len, found))
    for tag, cls in found.items():
        print(f"{tag:{width}}  {cls.__module__.split('.')[0]:22}  {_summary(cls)}")


def _summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]
