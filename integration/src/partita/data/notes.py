"""Notes on data: what was left out or taken for something else, one line each."""

import logging
import os
from collections.abc import Sequence
from functools import cache

from partita_core import short_repr

_logger = logging.getLogger("partita.data")


@cache
def note(text: str) -> None:
    """Log a line as a warning, which goes to stderr unless logging is set up otherwise; the same line only once.

    Of several processes the first one does it.
    """
    if os.environ.get("RANK", "0") == "0":
        _logger.warning("%s", text)


def counted(names: Sequence[str], noun: str = "") -> str:
    """A number of things, with the name of the first: `3 files ('a.wav', ...)`."""
    nouns = f" {noun}" if noun and len(names) == 1 else f" {noun}s" if noun else ""
    more = ", ..." if len(names) > 1 else ""
    return f"{len(names)}{nouns} ({short_repr(names[0])}{more})"
