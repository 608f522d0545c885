"""Messages about data: warnings that are logged once, and phrases for counts and causes."""

import logging
import os
from collections.abc import Sequence
from functools import cache

from partita_core import first_line, short_repr

_logger = logging.getLogger("partita.data")


@cache
def warn_once(text: str) -> None:
    """Log a line as a warning (to stderr, unless logging is set up otherwise), the same line only once.

    Of several processes, only the first logs it.
    """
    if os.environ.get("RANK", "0") == "0":
        _logger.warning("%s", text)


def counted(names: Sequence[str], noun: str = "") -> str:
    """A count with the name of the first item: `3 files ('a.wav', ...)`."""
    nouns = f" {noun}" if noun and len(names) == 1 else f" {noun}s" if noun else ""
    more = ", ..." if len(names) > 1 else ""
    return f"{len(names)}{nouns} ({short_repr(names[0])}{more})"


def with_cause(error: BaseException) -> str:
    """The message of another library's error in one line, followed by that of its cause."""
    line, cause = first_line(error), error.__cause__
    return line if cause is None or str(cause) == str(error) else f"{line.rstrip('.')}: {with_cause(cause)}"
