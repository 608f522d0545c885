"""The exception for errors that a caller can fix, and formatting of values in messages."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class PartitaError(ValueError):
    """An error that the caller can fix, with a message of one line.

    The command line prints the message and exits with code 2. Any other exception is a bug and keeps its traceback.
    The message is one line without control characters, even if it quotes file names or file contents that hold some.
    """

    def __str__(self) -> str:
        return escape_unprintable(_BREAKS.sub(" ", super().__str__()))


# Line breaks of `str.splitlines`, and tabs, with surrounding spaces.
_BREAKS = re.compile(r"[ ]*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")


def escape_unprintable(text: str) -> str:
    """Escape characters that are not safe to print, for texts from files.

    Escaped are control characters, which a terminal would execute, marks of text direction, and lone surrogates, which
    represent bytes of file names that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _SPACES else _escaped(char) for char in text)


# Typographic spaces, which `str.isprintable` rejects.
_SPACES = "\u00a0\u2009\u202f"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def suggest(name: str, valid: Iterable[str]) -> str:
    """Suggest the valid names closest to `name`, or list up to 40 of them, as the end of an error message."""
    names = sorted(valid)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    listed = names if len(names) <= 40 else [*names[:40], f"and {len(names) - 40} more"]
    return f"valid: {', '.join(listed)}" if names else "no valid names are registered"


def short_repr(value: Any) -> str:
    """The repr of a value, shortened for messages."""
    return shorten(repr(value))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shorten(text: str, limit: int = 160) -> str:
    """Shorten a text to about `limit` characters by cutting out its middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 4 :]}"
