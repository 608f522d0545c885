"""Training curves of one or several logs, over the steps."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partita.evaluation.results import is_numbered

from .plots import Series, plot, short

# Counters and times of a training log, which are not plotted.
_AXES = ("step", "epoch", "time", "seconds", "cpu_seconds", "elapsed", "minutes", "waited")
# Prefixes of curves that are shown first; the others are collapsed.
_FIRST = ("total", "validation/", "train/", "loss/")
_MAX_POINTS = 240


def curves_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """Curves in the rows of a log: name -> `(points, 2)` of step and value, in order of first appearance.

    Every finite number is a point of the curve named by its key; rows without "step" are numbered. Curves of fewer than
    two points are left out.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for count, row in enumerate(rows):
        step = row.get("step", count)
        for name, value in row.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if number and name.split("/")[-1] not in _AXES:
                found.setdefault(name, []).append((float(step), float(value)))
    return {name: np.asarray(points) for name, points in found.items() if len(points) > 1}


def chart(name: str, curves: Mapping[str, NDArray[np.float64]], colors: Mapping[str, int]) -> str:
    """Plot one curve `(points, 2)` per model; long curves are reduced to means and extremes of short segments."""
    series = []
    for model, points in curves.items():
        steps, low, mean, high = _downsampled(points)
        series.append(Series(model, np.stack([steps, mean], axis=1), low, high, colors[model]))
    last = short(float(series[0].points[-1, 1]), 4) if len(series) == 1 else ""
    return plot(name, series, value=last)


def charts(logs: Mapping[str, Iterable[Mapping[str, Any]]], colors: Mapping[str, int]) -> str:
    """All curves of the models' logs; empty if there are none."""
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for model, rows in logs.items():
        for name, points in curves_of(rows).items():
            found.setdefault(name, {})[model] = points
    order = sorted(found, key=lambda name: next((i for i, p in enumerate(_FIRST) if name.startswith(p)), len(_FIRST)))
    chief = [name for name in order if name.startswith(_FIRST) and not is_numbered(name)]
    first = [chart(name, found[name], colors) for name in chief]
    rest = [chart(name, found[name], colors) for name in order if name not in chief]
    if not first:
        first, rest = rest, []
    shown = f'<div class="charts">{"".join(first)}</div>' if first else ""
    folded = f'<details><summary>More curves</summary><div class="charts">{"".join(rest)}</div></details>'
    return shown + (folded if rest else "")


def _downsampled(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Step, minimum, mean and maximum of at most `_MAX_POINTS` segments, in the order of the steps."""
    points = points[np.argsort(points[:, 0], kind="stable")]
    segments = np.array_split(points, min(_MAX_POINTS, len(points)))
    table = [(s[-1, 0], s[:, 1].min(), s[:, 1].mean(), s[:, 1].max()) for s in segments]
    table[0] = (points[0, 0], *table[0][1:])
    return tuple(np.asarray(table).T)
