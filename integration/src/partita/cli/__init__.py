"""The command line `partita`: one file per command. User errors print one line and exit with code 2."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from ._interrupt import interruptible
from ._terminal import clean_terminal

COMMANDS = (
    "demo",
    "synth",
    "train",
    "quantize",
    "encode",
    "decode",
    "reconstruct",
    "tokenize",
    "detokenize",
    "evaluate",
    "report",
    "llm",
    "represent",
    "generate",
    "probe",
    "info",
    "components",
)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


@clean_terminal()
@interruptible()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from importlib.metadata import version

    parser = _Parser(prog="partita", description="Assemble, train, evaluate and use neural audio autoencoders.")
    parser.add_argument("--version", action="version", version=f"partita {version('partita')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    modules = {}
    for name in COMMANDS:
        module = modules[name] = import_module(f".{name}", __name__)
        summary = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=module.__doc__))
    options, rest = parser.parse_known_args(arguments)
    if rest and not (hasattr(options, "overrides") and not any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse accepts positional arguments in one position only, but overrides may stand anywhere
        options.overrides = rest

    from ._runtime import prepare_process

    prepare_process()
    from partita_core import PartitaError

    try:
        modules[options.command].run(options)
    except PartitaError as error:
        print(f"partita {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:  # from a run, it holds the message, which one process prints for all
        if text := getattr(interrupt, "text", "interrupted"):
            print(f"partita {options.command}: {text}", file=sys.stderr)
        return getattr(interrupt, "code", 130)
    except BrokenPipeError:
        # The reader of the output has stopped; closing stdout again at exit must not raise another error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a name that is too long, a full disk, too many open files
        where = f"{error.filename}: " if error.filename else ""
        print(f"partita {options.command}: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        advice = "use shorter files or crops, smaller batches, or a smaller model"
        print(f"partita {options.command}: there is not enough memory; {advice}", file=sys.stderr)
        return 2
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """True for Python's error and for torch's, which has no separate class on a CPU."""
    texts = ("can't allocate memory", "out of memory", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
