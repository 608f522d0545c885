"""What a run tells: a line of JSON now and then, and a progress bar."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from partita_core import PartitaError, atomic_write, parse_json, short_repr
from tqdm import tqdm


class Log:
    """`log.jsonl`: one object a line, each with its `step`; a resumed run drops what came after its checkpoint.

    What is a number goes to accelerate's trackers, too.

    Attributes:
        kept: the lines that were there when it was opened.
    """

    def __init__(self, path: Path, *, step: int, trackers: Sequence[Any] = ()) -> None:
        """Opens the log of a run that stands at `step`."""
        self.path, self._trackers = path, trackers
        self._warned: set[str] = set()
        self.kept = kept = [line for line in read_log(path) if line["step"] <= step]
        with atomic_write(path) as aside:  # a kill must not lose what was there
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """Add a line; a number that is not finite, which JSON does not have, is null in it."""
        values = {name: None if _infinite(value) else value for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        for tracker in self._trackers if numbers else ():
            tracker.log(numbers, step=step)

    def finite(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """The values that are finite, as losses are; a metric that is not is left out, with a warning."""
        for name, value in values.items():
            if not math.isfinite(value):
                self.warn(step, name, f"step {step}: {name} is {value}; it is left out of the log")
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def warn(self, step: int, kind: str, text: str) -> None:
        """Adds a line with a `warning`; the first of a kind is also written to stderr, without breaking a bar."""
        self.write(step, warning=text)
        if kind not in self._warned:
            tqdm.write(text, file=sys.stderr)
        self._warned.add(kind)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that a kill cut short is left out.

    Raises:
        PartitaError: it cannot be read, or is no log.
    """
    try:
        texts = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise PartitaError(f"cannot read {path}: {error.strerror or error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text.decode("utf-8"))
        except ValueError:  # what is no UTF-8, too
            if number == len(texts):
                break
            line = None
        if not isinstance(line, dict) or not all(_fits(name, value) for name, value in ({"step": None} | line).items()):
            raise PartitaError(
                f"{path} is no log of a run: line {number} is {short_repr(text.decode('utf-8', 'replace'))}"
            )
        lines.append(line)
    return lines


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _fits(name: str, value: Any) -> bool:
    """Whether a value of a log is what `Log` writes: counters and clocks are numbers, and numbers are no larger."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "step":
        return type(value) is int and 0 <= value < 1 << 63
    return (number and abs(value) <= sys.float_info.max) if number or name == "seconds" else True


class Progress:
    """A bar with the loss, steps a second and the time left."""

    def __init__(self, total: int, *, start: int, shown: bool) -> None:
        """Starts at step `start` of `total`."""
        self._bar = tqdm(total=total, initial=start, unit="step", disable=not shown, dynamic_ncols=True, leave=True)

    def update(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        """Moves to `step` of `total`."""
        self._bar.total = total
        shown = {name: f"{value:.4g}" for name, value in figures.items() if math.isfinite(value)}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if not self._bar.disable:
            tqdm.write(text)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
