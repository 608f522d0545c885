"""The one exception for what a caller can put right, and texts as messages show them."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class PartitaError(ValueError):
    """Something the caller can put right, said in one line.

    The command line prints the message and exits with code 2; everything else that is raised is a
    defect of ours and keeps its traceback. Its text is one line without control characters, whatever names it holds.
    """

    def __str__(self) -> str:
        return escape_unprintable(_BREAKS.sub(" ", super().__str__()))


# Line breaks as `str.splitlines` knows them, and tabs, with the spaces around them.
_BREAKS = re.compile(r"[ ]*[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\s*")


def escape_unprintable(text: str) -> str:
    """A text of a foreign file as a terminal or a table may show it: what does not print is escaped.

    Escaped are control characters, which would be obeyed, marks that turn the direction of text, and the halves of
    pairs that stand for bytes of a file name that is no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _SPACES else _escaped(char) for char in text)


# Spaces of typography, which Python does not call printable.
_SPACES = "\u00a0\u2009\u202f"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def suggest(name: str, valid: Iterable[str]) -> str:
    """Ends an error message with the valid names closest to `name`, or with all of them, up to 40, if none is."""
    names = sorted(valid)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    listed = names if len(names) <= 40 else [*names[:40], f"and {len(names) - 40} more"]
    return f"valid: {', '.join(listed)}" if names else "nothing is valid here"


def short_repr(value: Any) -> str:
    """A value as messages show it, however large it is."""
    return shorten(repr(value))


def first_line(error: BaseException) -> str:
    """What an error of another library says, as far as it is one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shorten(text: str, most: int = 160) -> str:
    """A text of at most about that many characters, with what is between its ends left out."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"
