"""The one exception for what a caller can put right."""

from collections.abc import Iterable
from difflib import get_close_matches


class PartitaError(ValueError):
    """Something the caller can put right, said in one line.

    The command line prints the message and exits with code 2; everything else that is raised is a
    defect of ours and keeps its traceback.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """Ends an error message with the valid names closest to `name`, or with all of them if none is."""
    names = sorted(valid)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"valid: {', '.join(names)}" if names else "nothing is valid here"
