"""Assembly of a report: one self-contained HTML page of metrics, plots and audio clips, without network requests."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from partita_core import atomic_write
from torch import Tensor

from partita.evaluation.results import Evaluation

from .clips import ReportClip, clip_card, legend
from .comparisons import Robustness, latent_plots, rate_distortion, robustness_plots
from .curves import charts
from .plots import key
from .tables import metrics_table, table


def write_report(
    path: str | Path,
    *,
    title: str,
    clips: Iterable[ReportClip | tuple[str, Tensor, Mapping[str, Tensor], int]] = (),
    logs: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    evaluation: Evaluation | None = None,
    robustness: Robustness | None = None,
    models: Mapping[str, Mapping[str, str]] | None = None,
    summary: Sequence[tuple[str, str]] = (),
    max_seconds: float = 15.0,
) -> None:
    """Write a report as one HTML file, atomically.

    Audio is embedded as 16-bit FLAC and spectrograms as PNG: about 0.2 MB per second of stereo and source. Sections
    without content are left out. A model has the same name and color on the entire page.

    Args:
        path: path of the file.
        title: heading of the page.
        clips: name, original `(channels, samples)`, reconstruction per model, and sample rate; or `ReportClip`.
        logs: model -> rows of its training log, each with "step" and named values.
        evaluation: results for the tables of metrics and latents and the plots over rates; metrics per clip are shown
            with the clips of the same name.
        robustness: metrics of audio decoded from noisy latents.
        models: model -> facts about it, label -> text.
        summary: label and value of each line at the top of the page.
        max_seconds: clips are truncated to this length, to keep the page small.

    Raises:
        PartitaError: the file cannot be written, or a clip and an estimate of it differ in shape.
    """
    colors = _Colors()
    if evaluation is not None:
        for system in evaluation.systems:
            if not system.reference:
                colors[system.name]
    cards = "".join(
        clip_card(clip if isinstance(clip, ReportClip) else ReportClip(*clip), evaluation, max_seconds, colors)
        for clip in clips
    )
    curves = charts(logs or {}, colors)
    legend_of_curves = key((model, colors[model]) for model in logs or {}) if len(logs or {}) > 1 else ""
    sections = {
        "Metrics": "" if evaluation is None else metrics_table(evaluation, colors),
        "Rate and distortion": "" if evaluation is None else rate_distortion(evaluation, colors),
        "Listen": legend(max_seconds) + cards if cards else "",
        "Robustness": "" if robustness is None else robustness_plots(robustness, colors),
        "Latents": latent_plots(evaluation, colors) if evaluation is not None and evaluation.latents else "",
        "Training": legend_of_curves + curves if curves else "",
        "Models": _models(models, colors) if models else "",
    }
    shown = {heading: content for heading, content in sections.items() if content}
    rows = "".join(f"<div><dt>{escape(str(a))}</dt><dd>{escape(str(b))}</dd></div>" for a, b in summary)
    links = "".join(f'<a href="#{_anchor(heading)}">{heading}</a>' for heading in shown)
    parts = {
        "title": escape(title),
        "style": _asset("style.css"),
        "script": _asset("script.js"),
        "summary": f'<dl class="summary">{rows}</dl>' if rows else "",
        "links": f"<nav>{links}</nav>" if len(shown) > 1 else "",
        "sections": "\n".join(
            f'<section id="{_anchor(heading)}"><h2>{heading}</h2>{content}</section>'
            for heading, content in shown.items()
        ),
    }
    page = Template(_asset("template.html")).substitute(parts)
    with atomic_write(path) as aside:
        aside.write_text(page, encoding="utf-8")


class _Colors(dict[str, int]):
    """Color number per model, assigned at first access."""

    def __missing__(self, name: str) -> int:
        return self.setdefault(name, len(self))


def _models(models: Mapping[str, Mapping[str, str]], colors: Mapping[str, int]) -> str:
    heading = list(dict.fromkeys(label for facts in models.values() for label in facts))
    rows = [(name, colors[name], [facts.get(label, "–") for label in heading]) for name, facts in models.items()]
    return table(heading, rows)


def _anchor(heading: str) -> str:
    return heading.split()[0].lower()


def _asset(name: str) -> str:
    return files("partita.report").joinpath(name).read_text(encoding="utf-8")
