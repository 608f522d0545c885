"""Loss curves as small charts in SVG, which take their colours from the page."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Counters and clocks of a training log: the axis, or of no interest as a curve.
_AXES = ("step", "epoch", "time", "seconds", "elapsed", "minutes")

_WIDTH, _HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 8, 22
_POINTS = 240


def series(rows: Iterable[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """The curves in the rows of a log: name -> `(points, 2)` of step and value, by their first appearance.

    Every finite number is a point of the curve its key names; a row without "step" is counted instead. Curves of fewer
    than two points are left out.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for count, row in enumerate(rows):
        step = row.get("step", count)
        for name, value in row.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if number and name.split("/")[-1] not in _AXES:
                found.setdefault(name, []).append((float(step), float(value)))
    return {name: np.asarray(points) for name, points in found.items() if len(points) > 1}


def chart(name: str, points: NDArray[np.float64]) -> str:
    """One curve `(points, 2)` as a figure with its name, its last value, and axes; logarithmic where that helps.

    Long curves are drawn as the band between the extremes and the mean of each of many short stretches.
    """
    steps, low, mean, high = _thinned(points)
    logarithmic = bool(low.min() > 0 and low.max() / low.min() > 8)
    scale = _Scale.over(np.concatenate([low, high]), logarithmic)
    first, last = float(steps[0]), float(steps[-1])
    x = _LEFT + (steps - first) / ((last - first) or 1) * (_WIDTH - _LEFT - _RIGHT)
    band = _path(np.concatenate([x, x[::-1]]), scale.place(np.concatenate([high, low[::-1]])))
    parts = []
    for tick in scale.ticks():
        y = float(scale.place(np.asarray([tick]))[0])
        parts.append(f'<path class="rule" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_short(tick)}</text>')
    for at, anchor in ((first, "start"), ((first + last) / 2, "middle"), (last, "end")):
        place = _LEFT + (at - first) / ((last - first) or 1) * (_WIDTH - _LEFT - _RIGHT)
        parts.append(f'<text x="{place:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{_short(at)}</text>')
    parts += [f'<path class="band" d="{band}Z"/>', f'<path class="line" d="{_path(x, scale.place(mean))}"/>']
    if len(points) <= 30:
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in zip(x, scale.place(mean))]
    label = escape(f"{name}: {points[0, 1]:.4g} at step {first:g}, {points[-1, 1]:.4g} at step {last:g}")
    return (
        f'<figure class="chart"><figcaption><span>{escape(name)}</span><b>{_short(mean[-1], 4)}</b></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'
    )


def charts(rows: Sequence[Mapping[str, Any]]) -> str:
    """All curves of a log; empty where there are none."""
    return "".join(chart(name, points) for name, points in series(rows).items())


def _thinned(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Step, minimum, mean and maximum of at most `_POINTS` stretches, in the order of the steps."""
    points = points[np.argsort(points[:, 0], kind="stable")]
    stretches = np.array_split(points, min(_POINTS, len(points)))
    table = [(s[-1, 0], s[:, 1].min(), s[:, 1].mean(), s[:, 1].max()) for s in stretches]
    table[0] = (points[0, 0], *table[0][1:])
    return tuple(np.asarray(table).T)


class _Scale:
    """The vertical axis: from values to places in the picture."""

    def __init__(self, low: float, high: float, logarithmic: bool) -> None:
        self.low, self.high, self.logarithmic = low, high, logarithmic

    @classmethod
    def over(cls, values: NDArray[np.float64], logarithmic: bool) -> "_Scale":
        # A few wild values at the start must not flatten all the rest.
        low, high = np.quantile(np.log10(values) if logarithmic else values, [0.0, 0.995])
        margin = 0.06 * (high - low) or 0.5 * (abs(high) or 1.0)
        return cls(low - margin, high + margin, logarithmic)

    def place(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        inner = np.log10(values) if self.logarithmic else values
        height = np.clip((inner - self.low) / (self.high - self.low), 0, 1)
        return _HEIGHT - _BOTTOM - height * (_HEIGHT - _TOP - _BOTTOM)

    def ticks(self) -> list[float]:
        """Two to five round values within the axis."""
        if self.logarithmic:
            for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
                decades = range(math.floor(self.low), math.ceil(self.high) + 1)
                found = [d * 10.0**k for k in decades for d in digits]
                found = [v for v in found if self.low <= math.log10(v) <= self.high]
                if len(found) > 1:
                    return found[:: -(-len(found) // 5)]
        rough = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        stride = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough)
        if self.logarithmic:
            return [10**self.low, 10**self.high]
        return [k * stride for k in range(math.ceil(self.low / stride), math.floor(self.high / stride) + 1)]


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y))


def _short(value: float, digits: int = 3) -> str:
    """A figure in few characters: 12k, 4,000, 0.25, 3e-05."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.{digits}g}M"
    if size >= 1e4:
        return f"{value / 1e3:.{digits}g}k"
    if size >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
