"""Clip cards of a report: original and estimates side by side, each with a spectrogram and an audio player."""

from collections.abc import Mapping
from html import escape
from typing import Literal, NamedTuple

import numpy as np
from partita_core import PartitaError
from torch import Tensor

from partita.evaluation.results import Evaluation, format_numbers

from .media import (
    DIFFERENCE_DB,
    RANGE_DB,
    audio_uri,
    color_stops,
    difference_png,
    frequency_marks,
    image_uri,
    spectrogram,
    spectrogram_png,
)
from .plots import swatch

# Panels are selected by digit keys, so there are at most 9.
_MAX_PANELS = 9

_TRANSPORT = """<div class="transport">
<button class="play" aria-label="Play or pause"><svg class="go" viewBox="0 0 16 16" aria-hidden="true"><path d="M4 1.8 14 8 4 14.2Z"/></svg><svg class="stop" viewBox="0 0 16 16" aria-hidden="true"><path d="M3 2h3.6v12H3zM9.4 2H13v12H9.4z"/></svg></button>
<input type="range" min="0" max="1" step="any" value="0" aria-label="Position"><output></output>
</div>"""  # noqa: E501


class ReportClip(NamedTuple):
    """A clip of a report; a plain tuple of the first four values is accepted too.

    Attributes:
        name: heading, and name of the clip in the evaluation.
        reference: original `(channels, samples)`.
        estimates: model -> its reconstruction, in the same shape.
        sample_rate: sample rate in Hz.
        evaluation: evaluation that has the metrics of this clip; None for that of the report.
    """

    name: str
    reference: Tensor
    estimates: Mapping[str, Tensor]
    sample_rate: int
    evaluation: Evaluation | None = None


def legend(max_seconds: float) -> str:
    """Legend of the spectrograms' colors, the switch between spectrograms and differences, and the key bindings."""
    keys = (
        ("space", "play, pause"),
        ("1–9", "source"),
        ("↑ ↓", "previous, next source"),
        ("← →", "seek 1 s, with ⇧ 5 s"),
        ("J K", "next, previous clip"),
        ("D", "spectrogram, difference"),
        ("esc", "deselect clip"),
    )
    hints = "".join(f"<span><kbd>{key}</kbd> {action}</span>" for key, action in keys)
    views = "".join(
        f'<label><input type="radio" name="view" value="{view}"{checked}>{label}</label>'
        for view, label, checked in (("levels", "Spectrogram", " checked"), ("differences", "Difference", ""))
    )
    levels = _scale("levels", f"−{RANGE_DB:.0f} dB", "the original’s peak")
    differences = _scale("differences", f"−{DIFFERENCE_DB:.0f} dB, missing", f"+{DIFFERENCE_DB:.0f} dB, added")
    note = f"Levels are not normalized. Clips are truncated to {max_seconds:g} s."
    return (
        f'<p class="note">Switching between sources keeps the position. {note}</p><div class="legend">'
        f'<span class="views" role="radiogroup" aria-label="Pictures">{views}</span>{levels}{differences}</div>'
        f'<p class="keys">{hints}</p>'
    )


def _scale(name: Literal["levels", "differences"], low: str, high: str) -> str:
    stops = ", ".join(color_stops(name))
    bar = f'<i style="background:linear-gradient(90deg, {stops})"></i>'
    return f'<span class="scale {name}">{low}{bar}{high}</span>'


def clip_card(clip: ReportClip, evaluation: Evaluation | None, max_seconds: float, colors: Mapping[str, int]) -> str:
    """Card of one clip: one panel for the original and one per estimate, with a common color scale and time axis.

    Panels of references have no color.

    Raises:
        PartitaError: an estimate differs from the original in shape, or there are more than eight.
    """
    name, reference, estimates, rate = clip[:4]
    evaluation = clip.evaluation or evaluation
    references = {system.name for system in evaluation.systems if system.reference} if evaluation else set()
    if len(estimates) >= _MAX_PANELS:
        raise PartitaError(f"{name} has {len(estimates)} estimates; a report shows at most {_MAX_PANELS - 1}")
    for model, estimate in estimates.items():
        if estimate.shape != reference.shape or reference.dim() != 2 or reference.numel() == 0:
            shapes = f"{tuple(estimate.shape)}, the original {tuple(reference.shape)}"
            raise PartitaError(f"{name}: {model} has shape {shapes}; both must be (channels, samples), not empty")
    samples = min(reference.shape[-1], max(1, round(max_seconds * rate)))
    sources = {"Original": reference} | dict(estimates)
    levels = {label: spectrogram(audio[:, :samples], rate) for label, audio in sources.items()}
    # One color scale per clip, set by the original, so that level differences are visible.
    top = max(float(np.max(levels["Original"])), -RANGE_DB)
    panels = []
    for number, (label, audio) in enumerate(sources.items(), start=1):
        color = None if number == 1 or label in references else colors[label]
        images = _image("levels", f"Spectrogram: {label}", spectrogram_png(levels[label], top))
        if number > 1:
            difference = difference_png(levels[label], levels["Original"], top)
            images += _image("differences", f"Difference from the original: {label}", difference)
        scores = "".join(f"<span>{escape(a)} <b>{b}</b></span>" for a, b in clip_scores(evaluation, name, label))
        panels.append(_panel(number, label, color, audio_uri(audio[:, :samples], rate), rate, images, scores))
    channels = "mono" if reference.shape[0] == 1 else f"{reference.shape[0]} channels"
    facts = f"{samples / rate:.1f} s · {rate / 1000:g} kHz · {channels}"
    return (
        f'<article class="clip" tabindex="-1" data-seconds="{samples / rate:.6f}">'
        f"<header><h3>{escape(name)}</h3><span>{facts}</span></header>"
        f'<div class="panels" style="--columns:{_columns(len(panels))}">{"".join(panels)}</div>{_TRANSPORT}</article>'
    )


def _columns(panels: int) -> int:
    """Number of panels per row on a wide screen: at most four, with rows of nearly equal length."""
    rows = -(-panels // 4)
    return -(-panels // rows)


def _panel(number: int, label: str, color: int | None, audio: str, rate: int, images: str, scores: str) -> str:
    marks = "".join(
        f'<span class="mark" style="bottom:{100 * height:.1f}%">{text}</span>' for height, text in frequency_marks(rate)
    )
    dot = "" if color is None else swatch(color)
    return (
        f'<figure class="panel"><button class="pick" aria-pressed="false"><kbd>{number}</kbd>{escape(label)}{dot}'
        f'</button><div class="plot">{images}{marks}<span class="head"></span></div>'
        f'<audio controls preload="none" src="{audio}"></audio>'
        f'<div class="scores">{scores}</div></figure>'
    )


def _image(kind: str, text: str, png: bytes) -> str:
    return f'<img class="{kind}" src="{image_uri(png)}" alt="{escape(text)}">'


def clip_scores(evaluation: Evaluation | None, clip: str, system: str) -> list[tuple[str, str]]:
    """Label and value with its unit, per metric that the evaluation has for a clip and a system."""
    names = [] if evaluation is None else [each.name for each in evaluation.clips]
    if evaluation is None or clip not in names or system not in evaluation.scores:
        return []
    row = names.index(clip)
    values = ((metric, evaluation.scores[system][metric.name][row]) for metric in evaluation.metrics)
    return [
        (metric.label, f"{format_numbers(value)[0]} {metric.unit}".rstrip())
        for metric, value in values
        if value is not None
    ]
