"""Signals during training: the step is ended, a checkpoint written, and then the run ends or goes on."""

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

# Seconds after which a signal that comes again is impatience; within them, it is torchrun passing on the terminal's.
_PATIENCE = 3.0

_ENDING = (signal.SIGINT, signal.SIGTERM)
_SAVING = [getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name)]  # Windows has none


class Interrupted(KeyboardInterrupt):
    """A run that a signal has ended, after a checkpoint.

    Attributes:
        text: one line that says how to resume; empty in all processes but the main one.
        code: conventional exit code: 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.text, self.code = text, 128 + number


class Signals:
    """Within it, SIGINT, SIGTERM and SIGUSR1 are noted for the end of the step.

    One that comes again seconds later does what it would without this. Signals that the process ignores stay ignored,
    and outside of the main thread, where Python does not handle signals, nothing is noted.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._first: dict[int, float] = {}
        self._came: set[int] = set()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (*_ENDING, *_SAVING):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: set by something other than Python
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def take(self) -> tuple[int, bool]:
        """The signal that is to end the run, or 0; and whether one asks for a checkpoint. Each is returned once."""
        came, self._came = self._came, set()
        ending = next((int(number) for number in _ENDING if number in came), 0)
        return ending, any(number in came for number in _SAVING)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number in _ENDING and now - self._first.setdefault(number, now) >= _PATIENCE:
            signal.signal(number, self._before.pop(number))
            signal.raise_signal(number)
        self._came.add(number)
