"""Safe terminal output: control characters in names and texts of files are escaped."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# Characters of progress bars: line breaks, tabs, and the sequence that moves the cursor up a line.
_OWN = re.compile(r"(\x1b\[A|[\n\r\t])")


class _Printable:
    """A text stream that shows control characters as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        parts = _OWN.split(text)
        if not all(part.isprintable() for part in parts[::2]):
            from partita_core import escape_unprintable  # imports torch, which `partita --help` does not need

            parts[::2] = map(escape_unprintable, parts[::2])
        self._stream.write("".join(parts))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def clean_terminal() -> Iterator[None]:
    """Escape control characters, and characters missing in the terminal's encoding, in all printed text."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (_Printable(stream) if stream else stream for stream in before)  # pyright: ignore
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
