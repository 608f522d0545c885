"""Tables of a report: metrics with intervals as whiskers, rates, paired differences, and plain tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from partita.evaluation.bootstrap import Interval
from partita.evaluation.results import Evaluation, MetricInfo, System, format_interval, format_numbers, format_rates

from .plots import swatch


def table(heading: Sequence[str], rows: Iterable[tuple[str, int | None, Sequence[str]]]) -> str:
    """Plain table; each row is a name, its color number, and its cells."""
    heads = "".join(f"<th>{escape(text)}</th>" for text in heading)
    body = "".join(
        f"<tr><td>{swatch(color)}{escape(name)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, color, cells in rows
    )
    return _scrolled(f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>")


def metrics_table(evaluation: Evaluation, colors: Mapping[str, int]) -> str:
    """Table of means and Frechet distances, followed by the collapsed table of differences."""
    confidence = f"{100 * evaluation.settings['confidence']:g} %"
    count = len(evaluation.clips)
    note = (
        f"Means over {count} clip{'' if count == 1 else 's'} with {confidence} bootstrap intervals; "
        "↓ lower is better, ↑ higher is better. Models come first, then references for comparison."
    )
    notes = "".join(f'<p class="note">{escape(text)}</p>' for text in evaluation.notes)
    return f'<p class="note">{note}</p>{_means(evaluation, colors)}{notes}{_differences(evaluation, confidence)}'


def _means(evaluation: Evaluation, colors: Mapping[str, int]) -> str:
    heads = "".join(f"<th>{escape(metric.title)}</th>" for metric in evaluation.metrics)
    for each in evaluation.frechet:
        name = re.sub("([:/])", r"\1<wbr>", escape(each.name))  # line breaks are allowed between its parts
        heads += f'<th class="named">{name} ↓</th>'
    scales = {metric.name: _scale(evaluation, metric) for metric in evaluation.metrics}
    rows = []
    for system in evaluation.systems:
        cells = [_cell(evaluation, system, metric, scales[metric.name]) for metric in evaluation.metrics]
        for each in evaluation.frechet:
            (distance,) = format_numbers(each.distances[system.name])
            cells.append(f"<td><b>{distance}</b></td>")
        rates = [f"<td>{rate}</td>" for rate in format_rates(system)]
        kind = "reference" if system.reference else "model"
        name = escape(system.name) if system.reference else swatch(colors[system.name]) + escape(system.name)
        rows.append(f'<tr class="{kind}"><td>{name}</td>{"".join((*cells, *rates))}</tr>')
    rates = "<th>numbers/s</th><th>kbit/s</th><th>encode<br>× real time</th><th>decode<br>× real time</th>"
    head = f"<thead><tr><th></th>{heads}{rates}</tr></thead>"
    return _scrolled(f'<table class="means">{head}<tbody>{"".join(rows)}</tbody></table>')


def _cell(evaluation: Evaluation, system: System, metric: MetricInfo, scale: tuple[float, float]) -> str:
    interval = evaluation.means[system.name][metric.name]
    mean, low, high = format_numbers(interval.mean, interval.low, interval.high)
    best = ' class="best"' if evaluation.best(metric) == system.name else ""
    return f"<td{best}><b>{mean}</b>{_whisker(interval, scale)}<small>{low} to {high}</small></td>"


def _scale(evaluation: Evaluation, metric: MetricInfo) -> tuple[float, float]:
    """Limits of a column's whiskers: the smallest and the largest end of an interval."""
    intervals = [means[metric.name] for means in evaluation.means.values()]
    return min(each.low for each in intervals), max(each.high for each in intervals)


def _whisker(interval: Interval, scale: tuple[float, float]) -> str:
    low, high = scale
    a, mean, b = (104 * (x - low) / ((high - low) or 1) for x in (interval.low, interval.mean, interval.high))
    return (
        '<svg class="whisker" viewBox="0 0 104 6" aria-hidden="true">'
        f'<path class="track" d="M0 3H104"/><path d="M{a:.1f} 3H{b:.1f}"/>'
        f'<circle cx="{mean:.1f}" cy="3" r="3"/></svg>'
    )


def _differences(evaluation: Evaluation, confidence: str) -> str:
    if not evaluation.differences:
        return ""
    heads = "".join(f"<th>{escape(metric.title)}</th>" for metric in evaluation.metrics)
    rows: dict[tuple[str, str], list[str]] = {}
    for each in evaluation.differences:
        kind = "" if each.clear and len(evaluation.clips) > 1 else ' class="unclear"'
        cell = f"<td{kind}>{format_interval(each.difference, sign=True)}</td>"
        rows.setdefault((each.system, each.baseline), []).append(cell)
    body = "".join(f"<tr><td>{escape(a)} − {escape(b)}</td>{''.join(cells)}</tr>" for (a, b), cells in rows.items())
    note = f"Means of paired differences with {confidence} intervals; pale if the interval contains zero."
    found = f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<details><summary>Paired differences</summary><p class="note">{note}</p>{_scrolled(found)}</details>'


def _scrolled(content: str) -> str:
    # The tab index makes tables scrollable by keyboard.
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{content}</div>'
