"""SVG plots styled by the page's CSS: curves, bands, and points with whiskers."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import NDArray

COLORS = 8
"""Number of colors, the classes `.c0` to `.c7` of the style sheet; references are gray."""

_WIDTH, _HEIGHT = 320, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 8, 36
# Distance in pixels between points at the same x position.
_POINT_DISTANCE = 7.0


@dataclass(frozen=True, eq=False)
class Series:
    """Data of one model or reference in a plot.

    Attributes:
        name: name in the tooltip.
        points: x positions and values `(count, 2)`, sorted by position.
        low: lower ends of the intervals, `(count,)`, or None.
        high: upper ends of the intervals, `(count,)`, or None.
        color: color number of the model; None for gray.
        style: "line" with a band; "points" with whiskers; "dashes" for a dashed line; "level" for a horizontal line at
            the value of the first point.
    """

    name: str
    points: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    color: int | None = None
    style: Literal["line", "points", "dashes", "level"] = "line"


def plot(
    title: str,
    series: Sequence[Series],
    *,
    value: str = "",
    x_label: str = "",
    x_ticks: Sequence[tuple[float, str]] | None = None,
    x_logarithmic: bool = False,
    y_logarithmic: bool | None = None,
) -> str:
    """Plot series as an HTML figure with a caption.

    Args:
        title: left part of the caption.
        series: at least one series with at least one point.
        value: right part of the caption.
        x_label: label of the x axis.
        x_ticks: positions and labels of ticks; None for round numbers.
        x_logarithmic: use a logarithmic x axis.
        y_logarithmic: use a logarithmic y axis; None to decide by the range of the values.
    """
    positions = np.concatenate([each.points[:, 0] for each in series if each.style != "level"])
    values = np.concatenate([_extent(each) for each in series])
    if y_logarithmic is None:
        y_logarithmic = bool(values.min() > 0 and values.max() / values.min() > 8)
    # Margin that keeps single points, and those moved aside, off the frame.
    inset = 0.06 if any(each.style == "points" for each in series) else 0.0
    x = Scale(positions, x_logarithmic, _LEFT, _WIDTH - _RIGHT, margin=inset)
    y = Scale(values, y_logarithmic, _HEIGHT - _BOTTOM, _TOP, margin=0.06, trim=0.995)
    parts = []
    for tick in y.ticks():
        at = float(y.to_pixels(np.asarray([tick]))[0])
        parts.append(f'<path class="rule" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick, text in [(tick, short(tick)) for tick in x.ticks()] if x_ticks is None else x_ticks:
        at = float(x.to_pixels(np.asarray([tick]))[0])
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{escape(text)}</text>')
    if x_label:
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    for each, shift in zip(series, _shifts(series)):
        parts.append(_drawn(each, x, y, shift))
    label = escape("; ".join([title, *(_in_words(each) for each in series[:12])]))
    many = " many" if sum(each.low is not None for each in series) > 3 else ""  # bands would hide each other
    return (
        f'<figure class="chart{many}"><figcaption><span>{escape(title)}</span><b>{escape(value)}</b></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg></figure>'
    )


def key(entries: Iterable[tuple[str, int | None]]) -> str:
    """Legend of the colors; gray entries are references."""
    items = [f"<li>{swatch(color)}{escape(name)}</li>" for name, color in entries]
    return f'<ul class="key">{"".join(items)}</ul>' if items else ""


def swatch(color: int | None) -> str:
    """Colored dot."""
    return f'<i class="swatch {_class(color)}"></i>'


class Scale:
    """An axis: maps values to pixel positions.

    Args:
        values: values that determine the range.
        logarithmic: use a logarithmic axis.
        start: pixel position of the lower end.
        end: pixel position of the upper end.
        margin: margin on both sides, relative to the range.
        trim: quantile that is the upper end of the range.
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        logarithmic: bool,
        start: float,
        end: float,
        *,
        margin: float,
        trim: float = 1.0,
    ) -> None:
        self.logarithmic, self.start, self.end = logarithmic, start, end
        # The quantile ignores outliers, such as the first values of a loss.
        low, high = np.quantile(np.log10(values) if logarithmic else values, [0.0, trim])
        space = margin * (high - low)
        if high == low:
            space = 0.1 if logarithmic else 0.5 * (abs(high) or 1.0)
        self.low, self.high = float(low - space), float(high + space)

    def to_pixels(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel positions of values, clamped to the frame."""
        inner = np.log10(np.maximum(values, 1e-300)) if self.logarithmic else values
        share = np.clip((inner - self.low) / (self.high - self.low), 0, 1)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """One to five round values within the range."""
        if self.logarithmic:
            for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
                decades = range(math.floor(self.low), math.ceil(self.high) + 1)
                found = [d * 10.0**k for k in decades for d in digits]
                found = [v for v in found if self.low <= math.log10(v) <= self.high]
                if len(found) > 1:
                    return found[:: -(-len(found) // 5)]
            return [10 ** ((self.low + self.high) / 2)]
        rough = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        stride = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough)
        return [k * stride for k in range(math.ceil(self.low / stride), math.floor(self.high / stride) + 1)]


def short(value: float, digits: int = 3) -> str:
    """Format a number in few characters: 12k, 4,000, 0.25, 3e-5."""
    size = abs(value)
    if size >= 1e6:
        text = f"{value / 1e6:.{digits}g}M"
    elif size >= 1e4:
        text = f"{value / 1e3:.{digits}g}k"
    elif size >= 1e3:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    return re.sub("e-0*", "e-", text).replace("-", "−")


def _drawn(series: Series, x: Scale, y: Scale, shift: float) -> str:
    name = f"<title>{escape(_in_words(series))}</title>"
    group = f'<g class="{_class(series.color)} {series.style}">{name}'
    at = x.to_pixels(series.points[:, 0]) + shift
    heights = y.to_pixels(series.points[:, 1])
    if series.style == "level":
        return f'{group}<path class="line" d="M{x.start:.1f} {heights[0]:.1f}H{x.end:.1f}"/></g>'
    parts = []
    if series.low is not None and series.high is not None:
        low, high = y.to_pixels(series.low), y.to_pixels(series.high)
        if series.style == "points":
            whiskers = "".join(f"M{a:.1f} {b:.1f}V{c:.1f}" for a, b, c in zip(at, low, high))
            parts.append(f'<path class="whiskers" d="{whiskers}"/>')
        elif len(at) > 1:
            outline = _path(np.concatenate([at, at[::-1]]), np.concatenate([high, low[::-1]]))
            parts.append(f'<path class="band" d="{outline}Z"/>')
    if series.style != "points" and len(at) > 1:
        parts.append(f'<path class="line" d="{_path(at, heights)}"/>')
    if series.style == "points" or len(at) <= 30:
        size = 3.5 if series.style == "points" else 2
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{size}"/>' for a, b in zip(at, heights)]
    return f"{group}{''.join(parts)}</g>"


def _shifts(series: Sequence[Series]) -> list[float]:
    """Horizontal shifts of the series in pixels, which separate points at the same position."""
    positions = [(float(each.points[0, 0]), i) for i, each in enumerate(series) if each.style == "points"]
    shifts = [0.0] * len(series)
    for position in {position for position, _ in positions}:
        group = [i for other, i in positions if other == position]
        for order, i in enumerate(group):
            shifts[i] = _POINT_DISTANCE * (order - (len(group) - 1) / 2)
    return shifts


def _extent(series: Series) -> NDArray[np.float64]:
    """All values of a series, including the ends of its intervals."""
    ends = [each for each in (series.low, series.high) if each is not None]
    return np.concatenate([series.points[:, 1], *ends])


def _in_words(series: Series) -> str:
    first, last = series.points[0], series.points[-1]
    if series.style == "level" or len(series.points) == 1:
        return f"{series.name}: {short(first[1], 4)}"
    return f"{series.name}: {short(first[1], 4)} at {short(first[0])}, {short(last[1], 4)} at {short(last[0])}"


def _class(color: int | None) -> str:
    return "gray" if color is None else f"c{color % COLORS}"


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y))
