"""One self-contained page of figures, clips to listen to and loss curves; it asks the network for nothing."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from partita_core import written_aside
from torch import Tensor

from ..evaluation.results import Evaluation
from .clips import ReportClip, clip_card, legend
from .curves import charts
from .figures import figures


def write_report(
    path: str | Path,
    *,
    title: str,
    clips: Iterable[tuple[str, Tensor, Mapping[str, Tensor], int]] = (),
    loss_curves: Sequence[Mapping[str, Any]] = (),
    evaluation: Evaluation | None = None,
    summary: Sequence[tuple[str, str]] = (),
    max_seconds: float = 15.0,
) -> None:
    """Writes a report as one HTML file, whole or not at all.

    Audio is in it as 16-bit FLAC and spectrograms as PNG: about 0.2 MB for a second of stereo and each source. Sections
    without content are left out.

    Args:
        path: of the file.
        title: its heading.
        clips: (name, original `(channels, samples)`, what each model made of it, sample rate); see `ReportClip`.
        loss_curves: the rows of a training log, each with "step" and any number of named figures.
        evaluation: the table of figures; its figures for single clips are shown with the clips of the same name.
        summary: (label, value) lines for the head of the page.
        max_seconds: clips are cut to this, to keep the page small.

    Raises:
        PartitaError: the file cannot be written, or a clip and an estimate of it differ in shape.
    """
    cards = "".join(clip_card(ReportClip(*clip), evaluation, max_seconds) for clip in clips)
    curves = charts(loss_curves)
    sections = [
        _section("figures", "Figures", figures(evaluation)) if evaluation is not None else "",
        _section("listen", "Listen", legend(max_seconds) + cards) if cards else "",
        _section("training", "Training", f'<div class="charts">{curves}</div>') if curves else "",
    ]
    rows = "".join(f"<div><dt>{escape(str(a))}</dt><dd>{escape(str(b))}</dd></div>" for a, b in summary)
    parts = {
        "title": escape(title),
        "style": _asset("style.css"),
        "script": _asset("script.js"),
        "summary": f'<dl class="summary">{rows}</dl>' if rows else "",
        "sections": "\n".join(filter(None, sections)),
    }
    page = Template(_asset("template.html")).substitute(parts)
    with written_aside(path) as aside:
        aside.write_text(page, encoding="utf-8")


def _section(name: str, heading: str, content: str) -> str:
    return f'<section id="{name}"><h2>{heading}</h2>{content}</section>'


def _asset(name: str) -> str:
    return files("partita.report").joinpath(name).read_text(encoding="utf-8")
