"""JSONL run log and progress bar."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from partita_core import PartitaError, atomic_write, parse_json, short_repr
from tqdm import tqdm


class Log:
    """`log.jsonl`: one JSON object per line, each with its `step`. Numbers also go to the trackers of accelerate.

    Attributes:
        kept: lines that were in the file when it was opened, up to the step of the checkpoint.
    """

    def __init__(self, path: Path, *, step: int, trackers: Sequence[Any] = ()) -> None:
        """Open the log of a run that continues from `step`; lines of later steps are removed."""
        self.path, self._trackers = path, trackers
        self._warned: set[str] = set()
        self.kept = kept = [line for line in read_log(path) if line["step"] <= step]
        with atomic_write(path) as aside:  # a kill must not lose the earlier lines
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, step: int, **values: Any) -> None:
        """Add a line; numbers that are not finite, which JSON does not have, are written as null."""
        values = {name: None if _infinite(value) else value for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        for tracker in self._trackers if numbers else ():
            tracker.log(numbers, step=step)

    def finite(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """The values that are finite; warns of the others, which are left out."""
        for name, value in values.items():
            if not math.isfinite(value):
                self.warn(step, name, f"step {step}: {name} is {value}; it is not logged")
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def warn(self, step: int, kind: str, text: str) -> None:
        """Add a line with a `warning`; the first of each kind is also written to stderr."""
        self.write(step, warning=text)
        if kind not in self._warned:
            tqdm.write(text, file=sys.stderr)
        self._warned.add(kind)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, except for a truncated last line.

    Raises:
        PartitaError: the file cannot be read, or is not a log.
    """
    try:
        texts = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise PartitaError(f"cannot read {path}: {error.strerror or error}") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text.decode("utf-8"))
        except ValueError:  # includes invalid UTF-8
            if number == len(texts):
                break
            line = None
        if not isinstance(line, dict) or not all(_fits(name, value) for name, value in ({"step": None} | line).items()):
            raise PartitaError(
                f"{path} is not the log of a run: line {number} is {short_repr(text.decode('utf-8', 'replace'))}"
            )
        lines.append(line)
    return lines


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _fits(name: str, value: Any) -> bool:
    """True of a value that `Log` may have written: steps are integers, seconds are numbers, and numbers are finite."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "step":
        return type(value) is int and 0 <= value < 1 << 63
    return (number and abs(value) <= sys.float_info.max) if number or name == "seconds" else True


class Progress:
    """Progress bar with the loss, metrics of the last evaluation, steps per second and the remaining time."""

    def __init__(self, total: int, *, start: int, shown: bool) -> None:
        """Open the bar at step `start` of `total`."""
        self._bar = tqdm(total=total, initial=start, unit="step", disable=not shown, dynamic_ncols=True, leave=True)
        self._values: dict[str, float] = {}

    def update(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Move to `step` of `total`, and show `values`."""
        self._bar.total = total
        self.show(values)
        self._bar.update(step - self._bar.n)

    def show(self, values: Mapping[str, float]) -> None:
        """Show `values` from now on, besides those that were shown before."""
        self._values |= {name: value for name, value in values.items() if math.isfinite(value)}
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in self._values.items()}, refresh=False)

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()
