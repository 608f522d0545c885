"""Signals during training: SIGINT, SIGTERM and SIGUSR1 take effect at the end of a step, after a checkpoint."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

# A repeated signal ends the run at once after this many seconds; before, torchrun has merely forwarded the first one.
_PATIENCE = 3.0

_ENDING = (signal.SIGINT, signal.SIGTERM)
_SAVING = [getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name)]  # Windows has none


class Interrupted(KeyboardInterrupt):
    """Raised when a signal has ended a run, after its checkpoint was written.

    Attributes:
        text: one line on how to resume; empty in all processes but the main one.
        code: conventional exit code: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.text, self.code = text, 128 + number


class Signals:
    """A context that collects SIGINT, SIGTERM and SIGUSR1 until the end of the step.

    A signal that is repeated seconds later has its usual effect. Signals that the process ignores stay ignored, and
    outside of the main thread, where Python handles no signals, none are collected.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._first: dict[int, float] = {}
        self._received: set[int] = set()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (*_ENDING, *_SAVING):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: set by something other than Python
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def take(self) -> tuple[int, bool]:
        """Number of the signal that ends the run, or 0, and True if a checkpoint is requested; clears both."""
        received, self._received = self._received, set()
        ending = next((int(number) for number in _ENDING if number in received), 0)
        return ending, any(number in received for number in _SAVING)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number in _ENDING and now - self._first.setdefault(number, now) >= _PATIENCE:
            signal.signal(number, self._before.pop(number))
            signal.raise_signal(number)
        self._received.add(number)
