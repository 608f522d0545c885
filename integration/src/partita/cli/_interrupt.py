"""Ctrl-C at any time, also while modules are imported, is one line and exit code 130."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process in one line where SIGINT has come.

    Some libraries catch a `KeyboardInterrupt` while they are imported and fail later, of whatever is missing then; so
    any error after the signal counts as the interrupt.

    Raises:
        SystemExit: SIGINT has come; the code is 130.
    """
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not came and not isinstance(error, KeyboardInterrupt):
            raise
        print("partita: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        if came:
            # Python remembers a signal that came within an `exec` of a text, as dataclasses are made, and would end
            # the process by it in place of a code; another `exec` clears that.
            exec("")
        if ours and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)
