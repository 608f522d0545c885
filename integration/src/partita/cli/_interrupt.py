"""Handling of Ctrl-C at any time, including imports: one line, and exit code 130."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process with one line after SIGINT.

    Some libraries catch a `KeyboardInterrupt` while they are imported and fail later for another reason, so any error
    after the signal counts as the interrupt.

    Raises:
        SystemExit: SIGINT was received; the code is 130.
    """
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    received: list[int] = []

    def record(number: int, frame: Any) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    if ours:
        signal.signal(signal.SIGINT, record)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not received and not isinstance(error, KeyboardInterrupt):
            raise
        print("partita: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        if received:
            # Python remembers a signal received within an `exec` of a text, which creates dataclasses, and would end
            # the process by that signal instead of the exit code; another `exec` clears this.
            exec("")
        if ours and signal.getsignal(signal.SIGINT) is record:
            signal.signal(signal.SIGINT, signal.default_int_handler)
