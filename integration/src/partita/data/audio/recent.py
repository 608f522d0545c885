"""A bounded cache of values per file, shared by threads."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class RecentFiles(Generic[Value]):
    """Values of the files that were added last, by what identifies a file and its contents.

    Args:
        budget: limit of the sum of the costs.
        cost: cost of a value.
    """

    def __init__(self, budget: int, cost: Callable[[Value], int]) -> None:
        self._values: dict[tuple, Value] = {}
        self._budget, self._cost, self._spent, self._lock = budget, cost, 0, Lock()

    def get(self, key: tuple | None) -> Value | None:
        """The value of a file; None if there is none, or the file has no key."""
        return None if key is None else self._values.get(key)

    def put(self, key: tuple | None, value: Value) -> None:
        """Add the value of a file, unless it has no key, and drop the oldest values beyond the budget."""
        if key is not None:
            with self._lock:
                if (before := self._values.pop(key, None)) is not None:
                    self._spent -= self._cost(before)
                self._values[key] = value
                self._spent += self._cost(value)
                while self._spent > self._budget and len(self._values) > 1:
                    self._spent -= self._cost(self._values.pop(next(iter(self._values))))
