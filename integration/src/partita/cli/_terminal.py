"""Standard output and standard error as a terminal may have them: names and texts of foreign files stay text."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

# Characters of progress bars: line ends, tabs, and the sequence that moves the cursor up a line.
_OWN = re.compile(r"(\x1b\[A|[\n\r\t])")


class _Printable:
    """A text stream that shows control characters as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        parts = _OWN.split(text)
        if not all(part.isprintable() for part in parts[::2]):
            from partita_core import escape_unprintable  # imports torch, which `partita --help` has no need of

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
    """Escape control characters, and whatever the terminal's encoding lacks, in all that is printed within."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (_Printable(stream) if stream else stream for stream in before)  # pyright: ignore
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
