"""Picture of clips as one PNG: spectrograms of the original and of every estimate, with metrics."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from partita_core import atomic_write

from .clips import ReportClip, clip_scores
from .media import RANGE_DB, frequency_marks, spectrogram

_GRAY = "#555555"


def write_figure(
    path: str | Path,
    clips: Sequence[ReportClip],
    *,
    metrics: Sequence[str] = ("SI-SDR", "log-mel L1"),
    seconds: float = 6.0,
) -> None:
    """Write a picture with one row of spectrograms per clip: the original, then the estimates.

    A row has one color scale, from the peak of the original to 80 dB below it.

    Args:
        path: path of the PNG.
        clips: at least one clip; metrics are shown if it has an `evaluation`.
        metrics: labels of the metrics that are shown.
        seconds: clips are truncated to this length.

    Raises:
        PartitaError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, and no state of the process

    columns = 1 + max(len(clip.estimates) for clip in clips)
    figure = Figure(figsize=(3 * columns, 2.9 * len(clips)), dpi=100, layout="constrained")
    parts = figure.subfigures(len(clips), 1, squeeze=False)[:, 0]
    for part, clip in zip(parts, clips, strict=True):
        part.suptitle(clip.name, x=0.01, ha="left", fontsize=11, fontweight="bold")
        _draw(part.subplots(1, columns, squeeze=False)[0], clip, metrics, seconds)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    with atomic_write(path) as aside:
        aside.write_bytes(_indexed(file))


def _draw(axes: Any, clip: ReportClip, metrics: Sequence[str], seconds: float) -> None:
    """Draw the spectrograms of a clip into a row of axes; those that remain are empty."""
    samples = min(clip.reference.shape[-1], max(1, round(seconds * clip.sample_rate)))
    sources = {"Original": clip.reference} | dict(clip.estimates)
    levels = {label: spectrogram(audio[:, :samples], clip.sample_rate) for label, audio in sources.items()}
    top = max(float(np.max(levels["Original"])), -RANGE_DB)
    marks = frequency_marks(clip.sample_rate)
    for place, (label, values) in zip(axes, levels.items()):
        extent = (0, samples / clip.sample_rate, 0, 1)
        place.imshow(values, cmap="magma", vmin=top - RANGE_DB, vmax=top, aspect="auto", extent=extent)
        scores = [f"{a} {b}" for a, b in clip_scores(clip.evaluation, clip.name, label) if a in metrics]
        place.set_title(label, loc="left", fontsize=9.5, pad=16)
        place.text(0, 1.03, " · ".join(scores), transform=place.transAxes, fontsize=8, color=_GRAY)
        place.tick_params(labelsize=7.5, labelcolor=_GRAY, color=_GRAY, length=2)
        place.set_yticks([height for height, _ in marks], [text for _, text in marks] if place is axes[0] else [])
        place.set_xlabel("seconds", fontsize=7.5, color=_GRAY, labelpad=1)
    for place in axes[len(levels) :]:
        place.set_axis_off()


def _indexed(file: io.BytesIO) -> bytes:
    """A PNG with a palette of 128 colors, a quarter as large."""
    from PIL import Image  # a dependency of matplotlib

    image = Image.open(file).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, format="PNG", optimize=True)
    return small.getvalue()
